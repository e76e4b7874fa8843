//! What a configuration comes to.

use std::path::{Path, PathBuf};

use super::*;
use portlayer::element::Kind;

fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment {
        variables: variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        root: true,
        system_file: PathBuf::from("/nonexistent/portlayer.toml"),
    }
}

fn file(text: &str) -> (tempfile::TempDir, Flags) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let flags = Flags {
        config: Some(path),
        ..Flags::default()
    };
    (dir, flags)
}

fn origin(loaded: &Loaded, key: &str) -> String {
    let setting = loaded.settings.iter().find(|s| s.key == key).unwrap();
    setting.origin.to_string()
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let bare = load(&Flags::default(), &environment(&[])).unwrap();
    assert_eq!(bare.config.data_dir, Path::new("/var/lib/portlayer"));
    assert_eq!(origin(&bare, "data_dir"), "default");

    let (_dir, mut flags) = file("data_dir = '/from-file'\n");
    let loaded = load(&flags, &environment(&[])).unwrap();
    assert_eq!(loaded.config.data_dir, Path::new("/from-file"));
    assert!(origin(&loaded, "data_dir").starts_with("file /"));

    let variables = environment(&[("PORTLAYER_DATA_DIR", "/variable")]);
    let loaded = load(&flags, &variables).unwrap();
    assert_eq!(loaded.config.data_dir, Path::new("/variable"));
    assert_eq!(
        origin(&loaded, "data_dir"),
        "environment PORTLAYER_DATA_DIR"
    );
    let empty = environment(&[("PORTLAYER_DATA_DIR", "")]);
    let loaded = load(&flags, &empty).unwrap();
    assert_eq!(loaded.config.data_dir, Path::new("/from-file"));

    flags.data_dir = Some("/flag".into());
    let loaded = load(&flags, &variables).unwrap();
    assert_eq!(loaded.config.data_dir, Path::new("/flag"));
    assert_eq!(origin(&loaded, "data_dir"), "flag --data-dir");
}

#[test]
fn programs_and_bounds_of_logs_are_settings() {
    let bare = load(&Flags::default(), &environment(&[])).unwrap().config;
    assert_eq!(bare.engine, EngineConfig::default());
    let bounds = portlayer_runtime::LogBounds::default();
    assert_eq!(
        (bare.logs.file_bytes, bare.logs.files),
        (bounds.segment_bytes, bounds.segments)
    );
    let (_dir, flags) = file(
        "[engine]\ncontainerd = '/opt/containerd'\ndisk_pool = '4GiB'\nid_ranges = '100-199'\n[logs]\nfile = '64k'\nfiles = 2\n",
    );
    let variables = environment(&[("PORTLAYER_RUNC", "crun"), ("PORTLAYER_LOG_FILES", "3")]);
    let config = load(&flags, &variables).unwrap().config;
    assert_eq!(config.engine.containerd, "/opt/containerd");
    assert_eq!(config.engine.runc, "crun");
    assert_eq!(config.engine.disk_pool_bytes, 4 << 30);
    assert_eq!(config.engine.id_ranges, 100..200);
    assert_eq!((config.logs.file_bytes, config.logs.files), (64 << 10, 3));
}

#[test]
fn data_go_where_the_user_expects_them() {
    let root = load(&Flags::default(), &environment(&[("HOME", "/root")])).unwrap();
    assert_eq!(root.config.data_dir, Path::new("/var/lib/portlayer"));
    let mut user = environment(&[("HOME", "/home/u")]);
    user.root = false;
    let loaded = load(&Flags::default(), &user).unwrap();
    assert_eq!(
        loaded.config.data_dir,
        Path::new("/home/u/.local/state/portlayer")
    );
    let xdg = environment(&[("HOME", "/root"), ("XDG_STATE_HOME", "/srv/state")]);
    let loaded = load(&Flags::default(), &xdg).unwrap();
    assert_eq!(loaded.config.data_dir, Path::new("/srv/state/portlayer"));
    let mut homeless = environment(&[]);
    homeless.root = false;
    assert!(matches!(
        load(&Flags::default(), &homeless),
        Err(ConfigError::NoDataDir)
    ));
}

#[test]
fn an_unknown_key_is_an_error_that_names_it() {
    for (text, key) in [
        ("dat_dir = '/x'", "dat_dir"),
        ("[engine]\nadress = '/x'", "adress"),
        ("[engine]\nmode = 'system'", "mode"),
        ("[trace]\nsample = 1", "sample"),
        ("[engine]\nnamespace = 'x'", "namespace"),
        (
            "[[locations]]\nname = 'a'\nkinds = ['image']\ncolour = 'red'",
            "colour",
        ),
    ] {
        let (_dir, flags) = file(text);
        let error = load(&flags, &environment(&[])).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn bad_values_name_key_and_origin() {
    for (text, key) in [
        ("data_dir = 'relative'", "data_dir"),
        ("[ledger]\ncache = '12 apples'", "ledger.cache"),
        ("[logs]\nfiles = 0", "logs.files"),
        ("[trace]\nendpoint = 'collector'", "trace.endpoint"),
        ("[logs]\nfile = '100'", "logs.file"),
        ("[engine]\nrunc = ''", "engine.runc"),
        ("[engine]\ndisk_pool = 'large'", "engine.disk_pool"),
        ("[engine]\nid_ranges = '7'", "engine.id_ranges"),
        ("[engine]\nid_ranges = '9-7'", "engine.id_ranges"),
        ("[engine]\nid_ranges = '0-24576'", "engine.id_ranges"),
        ("[engine]\ncontainerd = './containerd'", "engine.containerd"),
        (
            "[[locations]]\nname = 'builtin'\nkinds = ['task']",
            "locations[0].name",
        ),
        (
            "[[locations]]\nname = 'A'\nkinds = ['task']",
            "locations[0].name",
        ),
        (
            "[[locations]]\nname = 'a'\nkinds = ['image']",
            "locations[0].backing",
        ),
        (
            "[[locations]]\nname = 'a'\nkinds = []",
            "locations[0].kinds",
        ),
    ] {
        let (_dir, flags) = file(text);
        let error = load(&flags, &environment(&[])).unwrap_err();
        let ConfigError::Value {
            key: found,
            origin: Origin::File(_),
            ..
        } = &error
        else {
            panic!("{text}: {error}");
        };
        assert_eq!(found, key);
    }
    let error = load(
        &Flags::default(),
        &environment(&[("PORTLAYER_LOG_FILES", "many")]),
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "logs.files from environment PORTLAYER_LOG_FILES: invalid digit found in string"
    );
}

#[test]
fn a_file_gives_all_locations() {
    let (_dir, flags) = file(
        "[[locations]]\nname = 'disk'\nkinds = ['volume']\npolicy = 'create-only'\n\
         backing = { type = 'block', size = '2GiB' }\n",
    );
    let config = load(&flags, &environment(&[])).unwrap().config;
    assert_eq!(config.locations.len(), 1);
    assert_eq!(
        config.locations[0].backing,
        Backing::Block {
            path: None,
            size: 2 << 30
        }
    );
    assert_eq!(config.default_location(Kind::Volume), Some("disk"));
    assert_eq!(config.default_location(Kind::Image), None);
}

#[test]
fn a_file_that_was_asked_for_must_exist() {
    let flags = Flags {
        config: Some("/nonexistent/x.toml".into()),
        ..Flags::default()
    };
    assert!(matches!(
        load(&flags, &environment(&[])),
        Err(ConfigError::Read { .. })
    ));
}

#[test]
fn the_socket_is_the_system_s_the_user_s_or_beside_the_data() {
    let socket = |environment: &Environment, flags: &Flags| {
        let loaded = load(flags, environment).unwrap();
        loaded.config.socket.display().to_string()
    };
    let root = environment(&[("HOME", "/root")]);
    assert_eq!(
        socket(&root, &Flags::default()),
        "/run/portlayer/portlayer.sock"
    );
    let mut user = environment(&[("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/run/user/7")]);
    user.root = false;
    let theirs = "/run/user/7/portlayer/portlayer.sock";
    assert_eq!(socket(&user, &Flags::default()), theirs);
    let beside = environment(&[("PORTLAYER_DATA_DIR", "/srv/p")]);
    assert_eq!(socket(&beside, &Flags::default()), "/srv/p/portlayer.sock");
    let named = environment(&[("PORTLAYER_DATA_DIR", "/srv/p"), ("PORTLAYER_SOCKET", "/s")]);
    assert_eq!(socket(&named, &Flags::default()), "/s");
    let flags = Flags {
        socket: Some("/flag".into()),
        ..Flags::default()
    };
    assert_eq!(socket(&named, &flags), "/flag");
    let relative = environment(&[("PORTLAYER_SOCKET", "s")]);
    let error = load(&Flags::default(), &relative).unwrap_err().to_string();
    assert!(error.starts_with("socket from environment"), "{error}");
}

#[test]
fn the_more_specific_of_socket_and_embedded_is_the_way() {
    let way = |text: &str, variables: &[(&str, &str)], change: fn(&mut Flags)| {
        let (_dir, mut flags) = file(text);
        change(&mut flags);
        load(&flags, &environment(variables)).unwrap().way
    };
    fn nothing(_: &mut Flags) {}
    fn embedded(flags: &mut Flags) {
        flags.embedded = true;
    }
    fn socket(flags: &mut Flags) {
        flags.socket = Some("/s".into());
    }
    fn data_dir(flags: &mut Flags) {
        flags.data_dir = Some("/d".into());
    }
    let (yes, here) = ("embedded = true\n", &[("PORTLAYER_SOCKET", "/s")][..]);
    assert_eq!(way("", &[], nothing), Way::Daemon);
    assert_eq!(way(yes, &[], nothing), Way::Embedded);
    assert_eq!(way(yes, here, nothing), Way::Daemon);
    assert_eq!(way(yes, here, embedded), Way::Embedded);
    assert_eq!(way(yes, &[], socket), Way::Daemon);
    let both = [("PORTLAYER_EMBEDDED", "true"), here[0]];
    assert_eq!(way("", &both, nothing), Way::Embedded);
    assert_eq!(
        way("", &[("PORTLAYER_DATA_DIR", "/d")], nothing),
        Way::Daemon
    );
    assert_eq!(way("", &[], data_dir), Way::DaemonIfThere);
    assert_eq!(way("", here, data_dir), Way::DaemonIfThere);
    assert_eq!(
        way("", here, |flags| {
            data_dir(flags);
            socket(flags);
        }),
        Way::Daemon
    );
}

#[test]
fn the_daemon_is_configured_like_everything_else() {
    let (_dir, flags) = file(
        "[serve]\nmode = '0600'\nread_write_uids = [0, 7]\n\
         [serve.tls]\naddress = '[::1]:1'\ncertificate = '/c'\nkey = '/k'\nclient_ca = '/a'\nrole = 'read-write'\n",
    );
    let variables = [("PORTLAYER_READ_ONLY_GIDS", "50,60")];
    let loaded = load(&flags, &environment(&variables)).unwrap();
    let serve = &loaded.config.serve;
    assert_eq!(serve.mode, Mode(0o600));
    assert_eq!(serve.read_write_uids, Ids(vec![0, 7]));
    assert_eq!(serve.read_only_gids, Ids(vec![50, 60]));
    assert_eq!(serve.tls.as_ref().unwrap().role, Role::ReadWrite);
    let origin = |key: &str| {
        let setting = loaded.settings.iter().find(|setting| setting.key == key);
        setting.unwrap().origin.clone()
    };
    assert_eq!(
        origin("serve.read_only_gids"),
        Origin::Variable("PORTLAYER_READ_ONLY_GIDS")
    );
    assert_eq!(origin("serve.drain_seconds"), Origin::Default);
    for (text, key) in [
        ("[serve]\nmode = '999'", "serve.mode"),
        ("[serve.tls]\nkey = '/k'", "serve.tls.address"),
        ("[serve.tls]\naddress = 'x:1'", "serve.tls.certificate"),
        (
            "[serve.tls]\naddress = 'x:1'\ncertificate = '/c'\nkey = '/k'\nrole = 'read-write'",
            "serve.tls.role",
        ),
    ] {
        let (_dir, flags) = file(text);
        let error = load(&flags, &environment(&[])).unwrap_err();
        assert!(
            matches!(&error, ConfigError::Value { key: found, .. } if found == key),
            "{text}: {error}"
        );
    }
}
