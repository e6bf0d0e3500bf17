//! The namespaces that each kind of file sees: `docs/formats/rendering.md` has the table.

use serde_json::{Map, Value, json};

/// What is known of an environment from outside.
#[derive(Clone, Debug)]
pub struct EnvironmentData {
    /// `environment.name`.
    pub name: String,
    /// `environment.account_id`.
    pub account_id: String,
    /// `environment.outputs`.
    pub outputs: Value,
}

impl EnvironmentData {
    fn outside(&self) -> Value {
        json!({ "name": self.name, "account_id": self.account_id, "outputs": self.outputs })
    }

    /// Returns what the environment's own file sees: its inputs, and no outputs.
    pub fn own(name: &str, account_id: &str, inputs: &Value) -> Value {
        json!({ "environment": { "name": name, "account_id": account_id, "inputs": inputs } })
    }
}

/// `service`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ServiceData {
    /// `service.name`.
    pub name: String,
    /// `service.repository_id`; empty where there is none.
    pub repository_id: String,
    /// `service.repository_connection_arn`.
    pub repository_connection_arn: String,
    /// `service.branch_name`.
    pub branch_name: String,
}

impl ServiceData {
    fn value(&self) -> Value {
        json!({
            "name": self.name,
            "repository_id": self.repository_id,
            "repository_connection_arn": self.repository_connection_arn,
            "branch_name": self.branch_name,
        })
    }
}

/// What an instance's file sees.
#[derive(Clone, Debug)]
pub struct InstanceData {
    /// Its environment.
    pub environment: EnvironmentData,
    /// Its service.
    pub service: ServiceData,
    /// `service_instance.name`.
    pub name: String,
    /// `service_instance.inputs`.
    pub inputs: Value,
    /// The attached component's name and outputs.
    pub component: Option<(String, Value)>,
}

impl InstanceData {
    /// Returns the complete data.
    pub fn value(&self) -> Value {
        // With no component, both `default` and `default.outputs` are empty and never an error.
        let default = match &self.component {
            Some((name, outputs)) => json!({ "name": name, "outputs": outputs }),
            None => json!({ "outputs": {} }),
        };
        json!({
            "environment": self.environment.outside(),
            "service": self.service.value(),
            "service_instance": {
                "name": self.name,
                "inputs": self.inputs,
                "environment": self.environment.outside(),
                "components": { "default": default },
            },
        })
    }
}

/// One instance as a pipeline sees it.
#[derive(Clone, Debug)]
pub struct PipelineInstance {
    /// Its name.
    pub name: String,
    /// Its inputs.
    pub inputs: Value,
    /// Its outputs.
    pub outputs: Value,
    /// Its environment.
    pub environment: EnvironmentData,
}

/// What a pipeline's file sees.
#[derive(Clone, Debug)]
pub struct PipelineData {
    /// Its service.
    pub service: ServiceData,
    /// `pipeline.inputs`.
    pub inputs: Value,
    /// `service_instances` in the order of the spec.
    pub instances: Vec<PipelineInstance>,
}

impl PipelineData {
    /// Returns the complete data.
    pub fn value(&self) -> Value {
        let instances: Vec<Value> = self
            .instances
            .iter()
            .map(|i| json!({ "name": i.name, "inputs": i.inputs, "outputs": i.outputs, "environment": i.environment.outside() }))
            .collect();
        json!({ "service": self.service.value(), "pipeline": { "inputs": self.inputs }, "service_instances": instances })
    }
}

/// What a component's file sees.
#[derive(Clone, Debug)]
pub struct ComponentData {
    /// `component.name`.
    pub name: String,
    /// Its environment.
    pub environment: EnvironmentData,
    /// The instance it is attached to: its service, name and inputs.
    pub attached: Option<(ServiceData, String, Value)>,
}

impl ComponentData {
    /// Returns the complete data.
    pub fn value(&self) -> Value {
        let mut data = Map::new();
        data.insert("component".into(), json!({ "name": self.name }));
        data.insert("environment".into(), self.environment.outside());
        if let Some((service, name, inputs)) = &self.attached {
            data.insert("service".into(), service.value());
            data.insert(
                "service_instance".into(),
                json!({ "name": name, "inputs": inputs }),
            );
        }
        Value::Object(data)
    }
}
