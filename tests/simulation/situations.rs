//! Several steps in a row that lead to where single ones seldom get: waves that fail, removals in numbers, two daemons.

use std::time::Duration;

use isoform::local::{Failure, Phase};
use isoform::reconcile::ApproveWhat;

use crate::disk;
use crate::driver::{Simulation, Step, person};

impl Simulation {
    /// Works until nothing is due, or for so long.
    async fn work_off(&mut self, most: u32) {
        for _ in 0..most {
            if !self.work().await {
                return;
            }
        }
    }

    /// Lets go of several stacks at once, some of which others use; and perhaps nobody can see it any more just then.
    pub async fn purge(&mut self) {
        let mut model = self.model();
        model.broken = false;
        let number = self.commits.len() as u64 + 1;
        let some: &[&str] = match self.below(4) {
            0 => &["a", "b"],
            1 => &["a"],
            2 => &["b", "c"],
            _ => &["a", "b", "c", "data"],
        };
        if model.stacks.len() == 1 {
            // They come back first, so that there is something to let go of.
            for name in ["a", "b", "c"] {
                model.stacks.insert(name.into(), number);
            }
            self.commit(model.clone(), None);
            self.look().await;
            self.work_off(12).await;
        }
        model
            .stacks
            .retain(|name, _| !some.contains(&name.as_str()));
        self.commit(model, None);
        self.say(format!("push: without {some:?}"));
        self.look().await;
        self.work_off(12).await;
        match self.below(5) {
            0 => {
                self.look().await;
                self.step(Step::Unreachable).await;
                self.look().await;
            }
            1 => {
                self.look().await;
                self.step(Step::Break).await;
                self.look().await;
            }
            2 => {
                self.look().await;
                self.work_off(12).await;
                self.approve_everything().await;
            }
            _ => self.look().await,
        }
        self.work_off(12).await;
    }

    async fn approve_everything(&mut self) {
        let Some(line) = self.line() else { return };
        let Ok(estate) = line.estate().await else {
            return;
        };
        let ana = person();
        for target in estate.targets.into_iter().filter(|t| t.review.is_some()) {
            let (line, ana) = (line.clone(), ana.clone());
            let address = target.address.to_string();
            let what = ApproveWhat::Review {
                target: address.clone(),
                review: None,
                opens: false,
            };
            let said = self
                .carry(async move { line.approve(&what, &ana).await.is_ok() })
                .await;
            self.say(format!("{address}: approve: {said:?}"));
        }
    }

    /// Pushes a change of the service and lets time pass until it may have come to production, where it may fail.
    pub async fn roll_out(&mut self) {
        let mut model = self.model();
        model.broken = false;
        model.service = self.commits.len() as u64 + 1;
        self.commit(model, None);
        self.say("push: a change of the service, and time for it");
        if self.below(2) == 0 {
            let failure = Failure {
                stack: "*svc-web-prod*".into(),
                logical: "Alarm".into(),
                reason: "it does not work".into(),
                times: Some(1),
                phase: Phase::Make,
            };
            self.world.script(&failure).await.unwrap();
            self.say("the next change of *svc-web-prod* fails");
        }
        for _ in 0..5 {
            self.look().await;
            self.work_off(10).await;
            self.clock.advance(Duration::from_secs(301));
        }
    }

    /// Copies the state; starts a second daemon from the copy; goes on with the one or the other.
    pub fn twin(&mut self) {
        if self.other.is_some() {
            self.switch();
            self.say("the other daemon goes on");
            return;
        }
        if let Some(state) = self.copy.take() {
            self.stand_beside(state);
            self.say("a machine wakes from a copy, beside the first");
        } else if self.built.is_some() {
            let to = self.new_folder();
            disk::snapshot(&self.config.state, &to).unwrap();
            self.copy = Some(to);
            self.say("the machine is copied");
        }
    }
}
