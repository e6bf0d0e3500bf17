//! What the worlds of forges with nothing but a token have in common.

use std::sync::Arc;
use std::time::Duration;

use isoform::clock::Clock;
use isoform::domain::forge::ForgeKind;
use isoform::forge::{Auth, Forges, Settings};
use isoform::port::Forge;

use super::fakes::{Driver, Fake};

pub struct Plain {
    pub fake: Fake,
    pub clock: Clock,
    pub settings: Settings,
    _folder: tempfile::TempDir,
    _driver: Driver,
}

impl Plain {
    pub fn new(kind: ForgeKind, fake: Fake, clock: Clock, repository: &str, token: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        isoform::secret_file::write(&path, format!("{token}\n").as_bytes()).unwrap();
        let settings = Settings {
            kind,
            api: fake.api.clone(),
            repository: repository.to_owned(),
            auth: Auth::Token(path),
            ca: None,
        };
        Self {
            fake,
            _driver: Driver::of(clock.clone()),
            clock,
            settings,
            _folder: folder,
        }
    }

    pub fn opened(&self, patience: Duration) -> Arc<dyn Forge> {
        let forges = Forges::new(self.clock.clone()).patient(patience);
        forges.open(&self.settings).unwrap()
    }
}

#[tokio::test]
async fn only_github_has_apps() {
    for kind in [ForgeKind::GitLab, ForgeKind::Gitea, ForgeKind::Bitbucket] {
        let settings = Settings {
            kind,
            api: "https://forge.example".into(),
            repository: "acme/platform".into(),
            auth: Auth::App {
                id: "1".into(),
                key: "key.pem".into(),
                installation: None,
            },
            ca: None,
        };

        let refused = Forges::new(Clock::system()).open(&settings);

        let error = refused.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("a token"), "{kind}: {error}");
    }
}
