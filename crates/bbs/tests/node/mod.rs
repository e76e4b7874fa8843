//! Tasks on the fake engine behind the facade, and an authority with a server and a client.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portlayer::element::{ImageSpec, Kind, NewElement, Spec};
use portlayer::ledger::LedgerConfig;
use portlayer::runtime::fake::FakeRuntime;
use portlayer::store::memory::MemoryStore;
use portlayer::store::{Location, Policy, Store};
use portlayer::{Config, PortLayer};
use portlayer_bbs::{Facade, TlsFiles};
use portlayer_taskdef::diego::{Settings, Tasks};
use portlayer_taskdef::fetch::{Fetcher, Http};
use portlayer_taskdef::log::NoLog;
use portlayer_taskdef::run::{RunSettings, Runner};
use tokio_util::sync::CancellationToken;

const IMAGE: &str = "image://images/fs";

/// Certificates of one authority.
pub(crate) struct Authority {
    directory: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        use rcgen::{
            BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        };
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        for (name, usage) in [
            ("server", ExtendedKeyUsagePurpose::ServerAuth),
            ("client", ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            let signed = params.signed_by(&key, &issuer).unwrap();
            let file = |ending: &str| directory.path().join(format!("{name}.{ending}"));
            std::fs::write(file("pem"), signed.pem()).unwrap();
            std::fs::write(file("key"), key.serialize_pem()).unwrap();
        }
        Self { directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.file(name)).unwrap()
    }

    /// A client that trusts the authority, with a certificate of it or without.
    pub(crate) fn client(&self, known: bool) -> reqwest::Client {
        let root = reqwest::Certificate::from_pem(&self.read("ca.pem")).unwrap();
        let mut client = reqwest::Client::builder()
            .use_rustls_tls()
            .tls_built_in_root_certs(false)
            .add_root_certificate(root);
        if known {
            let both = [self.read("client.pem"), self.read("client.key")].concat();
            client = client.identity(reqwest::Identity::from_pem(&both).unwrap());
        }
        client.build().unwrap()
    }
}

/// A node that Diego's clients can call.
pub(crate) struct Node {
    pub(crate) url: String,
    tasks: Tasks,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Node {
    pub(crate) async fn open(authority: &Authority) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::create_dir(root.join("home")).unwrap();
        let status = std::fs::metadata(&root).unwrap();
        let (uid, gid) = {
            use std::os::unix::fs::MetadataExt;
            (status.uid(), status.gid())
        };
        let passwd = format!("me:x:{uid}:{gid}::/home:/bin/sh\n");
        std::fs::write(root.join("etc/passwd"), passwd).unwrap();
        let engine = FakeRuntime::new();
        engine.set_inside(root);
        let location = |name: &str, kind, store| Location {
            name: name.to_owned(),
            kinds: vec![kind],
            policy: Policy::ReadWrite,
            store,
        };
        let bytes = || Some(Arc::new(MemoryStore::default()) as Arc<dyn Store>);
        let layer = PortLayer::open(Config {
            ledger: LedgerConfig::new(directory.path().join("ledger")),
            networks: Vec::new(),
            locations: vec![
                location("images", Kind::Image, bytes()),
                location("volumes", Kind::Volume, bytes()),
                location("tasks", Kind::Task, None),
                location("executors", Kind::Executor, None),
            ],
            runtime: Arc::new(engine),
        })
        .await
        .unwrap();
        let image = NewElement::new(IMAGE.parse().unwrap(), Spec::Image(ImageSpec::default()));
        let image = image.data(Cursor::new(b"bytes".to_vec()));
        layer.create(image).await.unwrap();
        let client = Arc::new(Http::new().unwrap());
        let fetcher = Fetcher::new(client, directory.path().join("spool")).unwrap();
        let run = RunSettings {
            hold: vec!["hang".to_owned()],
            grace: Duration::from_millis(100),
            ..RunSettings::default()
        };
        let runner = Runner::new(layer, Arc::new(fetcher), Arc::new(NoLog), run);
        let settings = Settings {
            preloaded: BTreeMap::from([("fs".to_owned(), IMAGE.parse().unwrap())]),
            ..Settings::default()
        };
        let tasks = Tasks::open(runner, settings, "tasks").await.unwrap();
        let files = TlsFiles {
            certificate: authority.file("server.pem"),
            key: authority.file("server.key"),
            client_authority: authority.file("ca.pem"),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let facade = Facade::new(listener, &files, tasks.clone()).unwrap();
        let url = format!("https://{}", facade.address().unwrap());
        let stop = CancellationToken::new();
        let serving = tokio::spawn(facade.serve(stop.clone()));
        Self {
            url,
            tasks,
            stop,
            serving,
            _directory: directory,
        }
    }

    pub(crate) async fn close(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
        self.tasks.close().await;
    }
}
