//! Objects that somebody replaces in the bundle store while a deployment is held.

use isoform::domain::model::SyncResult;
use isoform::port::{Put, body, read_all};
use isoform::reconcile::{Selector, open_bundle, put_bundle};
use isoform::testing::faults;

use crate::alone;
use crate::driver::{Simulation, person};

fn executions() -> usize {
    let ledger = faults::ledger();
    let taken = ledger.iter().filter(|e| e.taken && e.call == "execute");
    taken.count()
}

impl Simulation {
    /// Returns the keys of a folder of the bundle store.
    async fn keys(&self, folder: &str) -> Vec<String> {
        let listed = self.ports.home().list(folder, None).await.unwrap();
        let keys = listed.items.into_iter().map(|i| i.key);
        keys.filter(|k| !k.ends_with(".json")).collect()
    }

    async fn object(&self, key: &str) -> Vec<u8> {
        let home = self.ports.home();
        read_all(home.as_ref(), key, None, 1 << 24).await.unwrap()
    }

    /// Puts an object over another one, as whoever may write to the bucket can.
    async fn replace(&self, key: &str, bytes: Vec<u8>) {
        let over = Put {
            if_absent: false,
            ..Put::default()
        };
        let home = self.ports.home();
        home.put(key, body(bytes), &over).await.unwrap();
    }

    /// Returns how a target is, and what is said of it.
    async fn said(&self, address: &str) -> (SyncResult, String) {
        let estate = self.line().unwrap().estate().await.unwrap();
        let mut targets = estate.targets.into_iter();
        let target = targets.find(|t| t.address.to_string() == address).unwrap();
        (target.condition.result, target.condition.detail)
    }

    /// Has a deployment of one target held by FREEZE, lets somebody meddle, and takes FREEZE away. What was replaced does
    /// not run, is named, and works again once it is gone.
    async fn meddled(&mut self, address: &str, key: &str, bytes: Option<Vec<u8>>, again: bool) {
        let before = executions();
        if again {
            self.built = None;
            self.start().await.unwrap();
        }
        match bytes {
            Some(bytes) => self.replace(key, bytes).await,
            None => self.ports.home().delete(key).await.unwrap(),
        }
        std::fs::remove_file(self.config.state.join("FREEZE")).unwrap();
        self.go_on(3).await;
        assert_eq!(executions(), before, "{address} was executed");
        let (result, detail) = self.said(address).await;
        assert_eq!(result, SyncResult::Stuck, "{detail}");
        assert!(detail.contains(key), "{detail}");

        self.ports.home().delete(key).await.unwrap();
        let line = self.line().unwrap();
        let selector = Selector::Targets(address.to_owned());
        line.retry(&selector, &person()).await.unwrap();
        drop(line);
        self.go_on(3).await;
        assert_eq!(self.said(address).await.0, SyncResult::InSync);
        assert!(executions() > before);
    }

    /// Begins a deployment that FREEZE holds.
    async fn held(&mut self, change: impl FnOnce(&mut crate::estate::Model)) {
        std::fs::write(self.config.state.join("FREEZE"), "").unwrap();
        let mut model = self.model();
        change(&mut model);
        self.commit(model, None);
        self.go_on(2).await;
    }
}

/// How a bundle is replaced: by noise, by a sealed message that was damaged, by another bundle that was sealed with our own
/// keys (SEC-45), by an archive in the clear, or by nothing.
#[test]
fn sec_44_a_bundle_that_was_replaced_after_it_was_put_runs_nothing() {
    for how in 0..5 {
        for again in [false, true] {
            alone(21, false, async move |s: &mut Simulation| {
                s.start().await?;
                s.go_on(30).await;
                s.held(|m| m.environment = 2).await;
                let bundles = s.keys("bundles/").await;
                assert_eq!(bundles.len(), 2, "one of an environment, one of a service");
                let (mut ours, mut other) = (bundles[0].clone(), bundles[1].clone());
                let opened = open_bundle(
                    s.ports.home().as_ref(),
                    s.ports.sealing().as_deref(),
                    &format!("b1:{}", &ours["bundles/".len()..]).parse().unwrap(),
                )
                .await
                .unwrap();
                if opened.keys().any(|k| k.contains("instance")) {
                    std::mem::swap(&mut ours, &mut other);
                }
                let bytes = match how {
                    0 => Some(b"noise".to_vec()),
                    1 => {
                        let mut bytes = s.object(&ours).await;
                        *bytes.last_mut().unwrap() ^= 1;
                        Some(bytes)
                    }
                    2 => Some(s.object(&other).await),
                    3 => Some(isoform::domain::bundle::pack(&opened).unwrap()[..40].to_vec()),
                    _ => None,
                };
                s.meddled("env/beta", &ours, bytes, again).await;
                Ok(())
            })
            .unwrap();
        }
    }
}

#[test]
fn sec_44_a_text_that_was_replaced_after_it_was_put_runs_nothing() {
    for again in [false, true] {
        alone(22, false, async move |s: &mut Simulation| {
            s.start().await?;
            s.go_on(30).await;
            let before = s.keys("rendered/").await;
            s.held(|m| {
                m.stacks.insert("a".into(), 2);
            })
            .await;
            let mut after = s.keys("rendered/").await;
            after.retain(|k| !before.contains(k));
            let [key] = &after[..] else {
                panic!("{after:?}")
            };
            let mut bytes = s.object(key).await;
            bytes.extend_from_slice(b"\n# one more line\n");
            s.meddled("stack/a", key, Some(bytes), again).await;
            Ok(())
        })
        .unwrap();
    }
}

/// Nothing was replaced: what another daemon of ours sealed and put is opened, and taken.
#[test]
fn a_bundle_that_is_the_same_by_other_bytes_is_taken() {
    alone(23, false, async move |s: &mut Simulation| {
        s.start().await?;
        s.go_on(30).await;
        s.held(|m| m.environment = 2).await;
        for key in s.keys("bundles/").await {
            let digest = format!("b1:{}", &key["bundles/".len()..]).parse().unwrap();
            let home = s.ports.home();
            let sealing = s.ports.sealing();
            let files = open_bundle(home.as_ref(), sealing.as_deref(), &digest)
                .await
                .unwrap();
            let before = s.object(&key).await;
            home.delete(&key).await.unwrap();
            let encryption = s.config.encryption;
            put_bundle(s.ports.as_ref(), encryption, &digest, &files, "net@1.0")
                .await
                .unwrap();
            assert_ne!(s.object(&key).await, before, "sealing is never the same");
        }
        let before = executions();
        std::fs::remove_file(s.config.state.join("FREEZE")).unwrap();
        s.go_on(3).await;
        assert!(executions() > before);
        assert_eq!(s.said("env/beta").await.0, SyncResult::InSync);
        Ok(())
    })
    .unwrap();
}
