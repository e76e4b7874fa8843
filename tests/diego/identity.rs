//! Keys and certificates of tasks.

use std::sync::Arc;
use std::time::Duration;

use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::X509;
use portlayer_taskdef::diego::State;
use portlayer_taskdef::identity::Authority;
use portlayer_taskdef::run::RunSettings;

use super::stage::Stage;

/// Both files, then whether root could write, and after the renewal both files again.
const LOOK: &str = r#"cd /etc/cf-instance-credentials
cat $CF_INSTANCE_CERT $CF_INSTANCE_KEY > /tmp/out
echo x 2>/dev/null > $CF_INSTANCE_KEY && echo WRITTEN >> /tmp/out
cp instance.crt /tmp/first; n=0
while cmp -s instance.crt /tmp/first && [ $n -lt 300 ]; do n=$((n+1)); sleep 0.1; done
cmp -s instance.crt /tmp/first && echo NOT RENEWED >> /tmp/out
cat instance.crt instance.key >> /tmp/out"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_has_a_certificate_of_its_own_that_is_renewed() {
    let params = {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    // The shortest there is: due again a bit more than four seconds later.
    let validity = Duration::from_secs(5);
    let authority = Authority::new(
        certificate.pem().as_bytes(),
        key.serialize_pem().as_bytes(),
        validity,
    );
    let stage = Stage::with(RunSettings {
        authority: Some(Arc::new(authority.unwrap())),
        ..RunSettings::default()
    })
    .await;
    let args = serde_json::to_string(&["-c", LOOK]).unwrap();
    let task = stage
        .run(&format!(
            r#""result_file":"/tmp/out","certificate_properties":{{"organizational_unit":["organization:o","app:a"]}},
            "action":{{"run":{{"path":"sh","user":"root","args":{args}}}}}"#
        ))
        .await;
    assert_eq!(task.state, State::Completed);
    assert_eq!((task.failed, task.failure_reason.as_str()), (false, ""));
    assert!(!task.result.contains("WRITTEN") && !task.result.contains("RENEWED"));

    let issuer = X509::from_pem(certificate.pem().as_bytes()).unwrap();
    let chain = X509::stack_from_pem(task.result.as_bytes()).unwrap();
    let [first, then, second, again] = chain.as_slice() else {
        panic!("{} certificates in {}", chain.len(), task.result);
    };
    assert_eq!(then.to_der().unwrap(), issuer.to_der().unwrap());
    assert_eq!(again.to_der().unwrap(), issuer.to_der().unwrap());
    let keys = task
        .result
        .split_inclusive("-----END RSA PRIVATE KEY-----\n");
    let keys = keys.map(|part| part.find("-----BEGIN RSA").map(|at| &part[at..]));
    let keys: Vec<_> = keys.flatten().collect();
    assert_eq!(keys.len(), 2);
    for (leaf, key) in [first, second].into_iter().zip(keys) {
        assert!(leaf.verify(&issuer.public_key().unwrap()).unwrap());
        let key = PKey::private_key_from_pem(key.as_bytes()).unwrap();
        assert!(key.public_eq(&leaf.public_key().unwrap()));
        let units = leaf
            .subject_name()
            .entries_by_nid(Nid::ORGANIZATIONALUNITNAME);
        let units: Vec<_> = units.map(|unit| unit.data().to_string().unwrap()).collect();
        assert_eq!(units, ["organization:o", "app:a"]);
        let names = leaf.subject_alt_names().unwrap();
        let addresses: Vec<_> = names.iter().filter_map(|name| name.ipaddress()).collect();
        // Without a network it is told the node's.
        assert_eq!(addresses, [&[127, 0, 0, 1]]);
    }
    stage.close().await;
}
