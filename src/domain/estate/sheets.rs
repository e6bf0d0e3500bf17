//! What each target of an estate rendered to, kept so that the next snapshot renders only what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Compiled, Context, Draft, Rendering, Target, TargetKind};
use crate::domain::graph::Graph;
use crate::domain::model::{Address, Finding, StackName};
use crate::domain::render::{Compiled as Ready, Limits, Prepared};
use crate::domain::template::Engine;

/// Outputs of a target.
pub type Outputs = Arc<BTreeMap<String, String>>;

/// What whoever fills sheets is asked and told.
pub struct Asker<'a> {
    /// Looks up the outputs of a target as they are deployed.
    pub real: &'a dyn Fn(&Address) -> Option<Outputs>,
    /// Tells whether a target was rendered with the deployed outputs before, and is as that asked.
    pub settled: &'a dyn Fn(&Arc<Target>) -> bool,
    /// Tells whether a draft is known to be right, and needs no reading: nobody uses its target's outputs.
    pub known: &'a mut dyn FnMut(&Arc<Target>, &Draft) -> bool,
    /// Is told of each rendering, and whether every output that it used is the deployed one.
    pub on: &'a mut dyn FnMut(&Arc<Target>, Rendering, bool),
}

/// How much filling sheets took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Filled {
    /// How many targets were rendered.
    pub rendered: usize,
    /// How many templates were compiled.
    pub compiled: usize,
    /// How many renderings were read.
    pub read: usize,
}

/// What every target of an estate rendered to, with the outputs that are known and names for those that will come.
///
/// Every fault of a commit is shown at once and not one after the other: so everything is rendered before anything
/// moves. A target that asks for the same, with the same outputs, is not rendered again.
#[derive(Clone, Debug, Default)]
pub struct Sheets {
    sheets: BTreeMap<Address, Sheet>,
    /// The graph by which they were filled last, with the level of each target in it.
    order: Option<Order>,
}

#[derive(Clone, Debug)]
struct Order {
    graph: Arc<Graph>,
    levels: Arc<BTreeMap<Address, usize>>,
}

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
    /// Whether what it rendered to was read: only then is it known which outputs it has.
    read: bool,
    /// Whether some of its outputs are only names yet.
    guessed: bool,
}

impl Sheets {
    /// Returns what is wrong with the renderings.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.sheets.values().flat_map(|s| &s.findings)
    }

    /// Renders every target that differs from the one on its sheet.
    ///
    /// What is as it was is passed over in one walk of both maps; only the rest is looked at.
    pub fn fill(&mut self, compiled: &Compiled, asker: &mut Asker<'_>) -> Filled {
        let mut open = self.suspects(compiled, asker);
        let mut filled = Filled::default();
        while let Some(level) = open.first().map(|(level, _)| *level) {
            let later = open.split_off(&(level + 1, None));
            let now = std::mem::replace(&mut open, later);
            // Nothing of a level uses anything else of it: each template is compiled once for all of them.
            let mut todo: Vec<Todo> = Vec::new();
            let mut stirred: Vec<Address> = Vec::new();
            for address in now.into_iter().filter_map(|(_, address)| address) {
                let before = self.outputs_of(&address);
                match self.differs(compiled, &address, asker) {
                    Some(one) => todo.push(one),
                    None if self.outputs_of(&address) != before => stirred.push(address),
                    None => {}
                }
            }
            let mut prepared = BTreeMap::new();
            for (key, path, text) in todo.iter().filter_map(|t| t.target.shared_template()) {
                prepared
                    .entry(key)
                    .or_insert_with(|| Prepared::new(&path, text));
            }
            let fuel = Limits::default().fuel;
            let ready: BTreeMap<_, _> = prepared
                .iter()
                // One that does not compile is compiled again by each that uses it, for the words of its fault.
                .filter_map(|(key, p)| Some((*key, p.as_ref().ok()?.compile(fuel).ok()?)))
                .collect();
            filled.compiled += ready.len();
            filled.rendered += todo.len();
            for one in &todo {
                let template = one.target.shared_template();
                let template = template.and_then(|(key, _, _)| ready.get(&key));
                let (sheet, read) = one.sheet(template, asker);
                filled.read += usize::from(read);
                let address = one.target.address.clone();
                let before = self.outputs_of(&address);
                if before.as_deref() != sheet.outputs.as_deref() {
                    stirred.push(address.clone());
                }
                self.sheets.insert(address, sheet);
            }
            // Whoever uses what has other outputs now is looked at too: in a later level, for levels are made so.
            let Some(order) = &self.order else { break };
            for user in stirred.iter().flat_map(|a| compiled.graph.users(a)) {
                if let Some(at) = order.levels.get(user).filter(|at| **at > level) {
                    open.insert((*at, Some(user.clone())));
                }
            }
        }
        filled
    }

    fn outputs_of(&self, address: &Address) -> Option<Outputs> {
        self.sheets.get(address)?.outputs.clone()
    }

    /// Finds who may differ from what stands on its sheet, by level; sheets of who is gone are thrown away.
    fn suspects(
        &mut self,
        compiled: &Compiled,
        asker: &Asker<'_>,
    ) -> BTreeSet<(usize, Option<Address>)> {
        let same = |order: &&Order| Arc::ptr_eq(&order.graph, &compiled.graph);
        let levels = match self.order.as_ref().filter(same) {
            Some(order) => order.levels.clone(),
            None => {
                let mut levels = BTreeMap::new();
                for (at, level) in compiled.graph.levels().into_iter().enumerate() {
                    levels.extend(level.into_iter().map(|address| (address, at)));
                }
                Arc::new(levels)
            }
        };
        let rewired = self.order.as_ref().filter(same).is_none();
        // With other edges, what was nobody's may be somebody's now.
        let unread = |address: &Address, sheet: &Sheet| {
            rewired && !sheet.read && compiled.graph.users(address).next().is_some()
        };
        self.order = Some(Order {
            graph: compiled.graph.clone(),
            levels: levels.clone(),
        });
        let mut suspects: Vec<&Address> = Vec::new();
        let mut gone: Vec<Address> = Vec::new();
        let mut sheets = self.sheets.iter().peekable();
        for (address, target) in &compiled.targets {
            while let Some((left, _)) = sheets.next_if(|(a, _)| *a < address) {
                gone.push(left.clone());
            }
            let sheet = sheets.next_if(|(a, _)| *a == address);
            if sheet.is_none_or(|(_, s)| !Arc::ptr_eq(&s.target, target) || unread(address, s)) {
                suspects.push(address);
            }
        }
        gone.extend(sheets.map(|(address, _)| address.clone()));
        for address in compiled.graph.used() {
            if self
                .sheets
                .get(address)
                .is_some_and(|s| s.real != (asker.real)(address))
            {
                suspects.push(address);
            }
        }
        // Who used what is gone cannot be judged any more.
        suspects.extend(gone.iter().flat_map(|a| compiled.graph.users(a)));
        let open = suspects
            .into_iter()
            .map(|a| (levels.get(a).copied().unwrap_or_default(), Some(a.clone())))
            .collect();
        for address in gone {
            self.sheets.remove(&address);
        }
        open
    }

    /// Brings the sheet of a target that needs no rendering up to date; returns one that does.
    fn differs(
        &mut self,
        compiled: &Compiled,
        address: &Address,
        asker: &Asker<'_>,
    ) -> Option<Todo> {
        let target = compiled
            .targets
            .get(address)
            .filter(|t| !t.faults.iter().any(Finding::is_error));
        let Some(target) = target else {
            self.sheets.remove(address);
            return None;
        };
        // What uses a target that cannot be rendered cannot be judged.
        let fed: Option<Vec<&Sheet>> = target
            .producers()
            .iter()
            .map(|p| self.sheets.get(p).filter(|s| s.outputs.is_some()))
            .collect();
        let Some(fed) = fed.filter(|_| target.engine() == Engine::Jinja) else {
            self.sheets.remove(address);
            return None;
        };
        let guessed = fed.iter().any(|s| s.guessed);
        let certain = fed
            .iter()
            .all(|s| s.real.is_none() && !s.guessed || s.real == s.outputs);
        let fed: Vec<Outputs> = fed.iter().filter_map(|s| s.outputs.clone()).collect();
        let real = (asker.real)(address);
        let used = compiled.graph.users(address).next().is_some();
        if let Some(sheet) = self.sheets.get_mut(address)
            && (Arc::ptr_eq(&sheet.target, target) || sheet.target == *target)
            && (sheet.read || !used)
            && (sheet.fed == fed || (certain && sheet.outputs.is_some() && (asker.settled)(target)))
        {
            sheet.target = target.clone();
            sheet.fed = fed;
            if sheet.real != real {
                sheet.real = real;
                if let Some(outputs) = sheet.outputs.take() {
                    sheet.name_outputs(outputs.keys());
                }
            }
            return None;
        }
        if let TargetKind::CustomerManaged { outputs } = &target.kind {
            let sheet = Sheet {
                target: target.clone(),
                fed,
                real,
                findings: Vec::new(),
                outputs: Some(Arc::new(outputs.clone())),
                read: true,
                guessed: false,
            };
            self.sheets.insert(address.clone(), sheet);
            return None;
        }
        Some(Todo {
            target: target.clone(),
            fed,
            real,
            guessed,
            certain,
            used,
        })
    }
}

impl Sheet {
    /// Gives outputs their values: what is deployed has the real ones; what will come stands as a name.
    fn name_outputs<'a>(&mut self, names: impl IntoIterator<Item = &'a String>) {
        self.guessed = false;
        let mut outputs = BTreeMap::new();
        for name in names {
            let deployed = self.real.as_ref().and_then(|o| o.get(name)).cloned();
            self.guessed |= deployed.is_none();
            let value = deployed.unwrap_or_else(|| placeholder(&self.target.address, name));
            outputs.insert(name.clone(), value);
        }
        self.outputs = Some(Arc::new(outputs));
    }
}

/// A target that is to be rendered.
struct Todo {
    target: Arc<Target>,
    fed: Vec<Outputs>,
    real: Option<Outputs>,
    /// Whether it uses outputs that are only names.
    guessed: bool,
    /// Whether every output that it uses is the deployed one.
    certain: bool,
    /// Whether somebody uses its outputs.
    used: bool,
}

impl Todo {
    fn sheet(&self, template: Option<&Ready<'_>>, asker: &mut Asker<'_>) -> (Sheet, bool) {
        let nobody = Nobody::new();
        let target = &self.target;
        let producers = target.producers();
        let known = |a: &Address| {
            let at = producers.iter().position(|p| p == a)?;
            self.fed.get(at).map(|o| (**o).clone())
        };
        let context = Context {
            owner: &nobody.owner,
            stack_name: &nobody.stack_name,
            outputs: &known,
            limits: Limits::default(),
        };
        let mut sheet = Sheet {
            target: target.clone(),
            fed: self.fed.clone(),
            real: self.real.clone(),
            findings: Vec::new(),
            outputs: None,
            read: true,
            guessed: false,
        };
        let draft = target.draft(&context, template);
        if let Ok(draft) = &draft
            && self.certain
            && !self.used
            && (asker.known)(target, draft)
        {
            sheet.outputs = Some(Arc::default());
            sheet.read = false;
            return (sheet, false);
        }
        match draft.and_then(|draft| target.check(draft)) {
            Ok(mut rendering) => {
                sheet.findings = std::mem::take(&mut rendering.notes);
                sheet.name_outputs(&rendering.outputs);
                (asker.on)(target, rendering, self.certain);
            }
            // A template may branch on a value that is only a name yet: then a missing name is certain, and nothing else.
            Err(more) => sheet.findings.extend(more.into_iter().filter(|f| {
                !self.guessed
                    || (f.code == "render.undefined" && f.message.ends_with("is not defined"))
            })),
        }
        (sheet, true)
    }
}

/// Stands for who is not known yet: none of it reaches a rendered text.
struct Nobody {
    owner: BTreeMap<String, String>,
    stack_name: StackName,
}

impl Nobody {
    fn new() -> Self {
        Self {
            owner: BTreeMap::new(),
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
