//! What each target of an estate rendered to, kept so that the next snapshot renders only what differs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Compiled, Context, Rendering, Target, TargetKind};
use crate::domain::model::{Address, Finding, InstallationId, StackName, TargetUid};
use crate::domain::render::Limits;
use crate::domain::template::Engine;

/// Outputs of a target.
pub type Outputs = Arc<BTreeMap<String, String>>;

/// Looks up the outputs of a target as they are deployed.
pub type Real<'a> = dyn Fn(&Address) -> Option<Outputs> + 'a;

/// Is told of each rendering: the target, what came out, and whether every output that it used is the deployed one.
pub type Rendered<'a> = dyn FnMut(&Arc<Target>, Rendering, bool) + 'a;

/// What every target of an estate rendered to, with the outputs that are known and names for those that will come.
///
/// Every fault of a commit is shown at once and not one after the other: so everything is rendered before anything
/// moves. A target that asks for the same, with the same outputs, is not rendered again.
#[derive(Clone, Debug, Default)]
pub struct Sheets(BTreeMap<Address, Sheet>);

#[derive(Clone, Debug)]
struct Sheet {
    target: Arc<Target>,
    /// The outputs that it was rendered with, by producer.
    fed: Vec<Outputs>,
    /// Its own outputs, as they are deployed.
    real: Option<Outputs>,
    findings: Vec<Finding>,
    /// Names of its outputs with their values, or names in their place; absent where it could not be rendered.
    outputs: Option<Outputs>,
    /// Whether some of its outputs are only names yet.
    guessed: bool,
}

impl Sheets {
    /// Returns what is wrong with the renderings.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.0.values().flat_map(|s| &s.findings)
    }

    /// Renders every target that differs from the one on its sheet. Returns how many were rendered.
    pub fn fill(&mut self, compiled: &Compiled, real: &Real<'_>, on: &mut Rendered<'_>) -> usize {
        self.0
            .retain(|address, _| compiled.targets.contains_key(address));
        let mut count = 0;
        for address in compiled.graph.levels().into_iter().flatten() {
            let target = compiled
                .targets
                .get(&address)
                .filter(|t| !t.faults.iter().any(Finding::is_error));
            let Some(target) = target else {
                self.0.remove(&address);
                continue;
            };
            // What uses a target that cannot be rendered cannot be judged.
            let fed: Option<Vec<&Sheet>> = target
                .producers()
                .iter()
                .map(|p| self.0.get(p).filter(|s| s.outputs.is_some()))
                .collect();
            let Some(fed) = fed.filter(|_| target.engine() == Engine::Jinja) else {
                self.0.remove(&address);
                continue;
            };
            let guessed = fed.iter().any(|s| s.guessed);
            let certain = fed
                .iter()
                .all(|s| s.real.is_none() && !s.guessed || s.real == s.outputs);
            let fed: Vec<Outputs> = fed.iter().filter_map(|s| s.outputs.clone()).collect();
            let own = real(&address);
            if let Some(sheet) = self.0.get_mut(&address)
                && (Arc::ptr_eq(&sheet.target, target) || sheet.target == *target)
                && sheet.fed == fed
                && sheet.real == own
            {
                sheet.target = target.clone();
                continue;
            }
            if let TargetKind::CustomerManaged { outputs } = &target.kind {
                let sheet = Sheet {
                    target: target.clone(),
                    fed,
                    real: own,
                    findings: Vec::new(),
                    outputs: Some(Arc::new(outputs.clone())),
                    guessed: false,
                };
                self.0.insert(address, sheet);
                continue;
            }
            count += 1;
            let sheet = sheet(target, fed, own, (guessed, certain), on);
            self.0.insert(address, sheet);
        }
        count
    }
}

fn sheet(
    target: &Arc<Target>,
    fed: Vec<Outputs>,
    real: Option<Outputs>,
    (guessed, certain): (bool, bool),
    on: &mut Rendered<'_>,
) -> Sheet {
    let nobody = Nobody::new();
    let producers = target.producers();
    let known = |a: &Address| {
        let at = producers.iter().position(|p| p == a)?;
        fed.get(at).map(|o| (**o).clone())
    };
    let rendered = target.render(&Context {
        installation: &nobody.installation,
        uid: &nobody.uid,
        stack_name: &nobody.stack_name,
        outputs: &known,
        limits: Limits::default(),
    });
    let mut sheet = Sheet {
        target: target.clone(),
        fed,
        real,
        findings: Vec::new(),
        outputs: None,
        guessed: false,
    };
    match rendered {
        Ok(mut rendering) => {
            sheet.findings = std::mem::take(&mut rendering.notes);
            // What is deployed has the real values; what will come stands as a name.
            let mut names = BTreeMap::new();
            for name in &rendering.outputs {
                let deployed = sheet.real.as_ref().and_then(|o| o.get(name)).cloned();
                sheet.guessed |= deployed.is_none();
                let value = deployed.unwrap_or_else(|| placeholder(&target.address, name));
                names.insert(name.clone(), value);
            }
            sheet.outputs = Some(Arc::new(names));
            on(target, rendering, certain);
        }
        // A template may branch on a value that is only a name yet: then a missing name is certain, and nothing else.
        Err(more) => sheet.findings.extend(more.into_iter().filter(|f| {
            !guessed || (f.code == "render.undefined" && f.message.ends_with("is not defined"))
        })),
    }
    sheet
}

/// Stands for who is not known yet: none of it reaches a rendered text.
struct Nobody {
    installation: InstallationId,
    uid: TargetUid,
    stack_name: StackName,
}

impl Nobody {
    fn new() -> Self {
        let zeros = "0".repeat(32);
        Self {
            installation: zeros
                .parse()
                .unwrap_or_else(|_| unreachable!("32 zeros are an id")),
            uid: zeros
                .parse()
                .unwrap_or_else(|_| unreachable!("32 zeros are a uid")),
            stack_name: "validate"
                .parse()
                .unwrap_or_else(|_| unreachable!("a word is a stack name")),
        }
    }
}

/// Stands for an output that is not known yet: passes every filter of Proton's.
pub(crate) fn placeholder(address: &Address, output: &str) -> String {
    let safe: String = address
        .to_string()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    format!("isoform-unknown-{safe}-{output}")
}
