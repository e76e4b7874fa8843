//! Texts that mean something to us: ids, filters, rules, references, definitions, tokens.

use portlayer::compose::Handle;
use portlayer::element::{Checksum, ElementId};
use portlayer::filter::{ElementField, Filter};
use portlayer::network::{EgressRule, Protocol, closed, compile};
use portlayer_taskdef::diego;

use super::report::{Must, Report, Seen};

/// Ids: what is taken has one text only, and names no place by itself.
pub(super) fn ids(report: &mut Report) {
    let mut texts: Vec<String> = [
        "",
        "image",
        "image:",
        "image:/",
        "image://",
        "image://x",
        "image://x/",
        "image:///x",
        "image://x//y",
        "image://x/y/",
        "image://x/../y",
        "image://x/y/..",
        "image://x/.",
        "image://x/%2e%2e/y",
        "image://x/..%2f..%2fetc",
        "image://x/y%00",
        "image://x/y\0",
        "image://x/y\n",
        "image://x/\ty",
        "ima\nge://x/y",
        "image://x/y?q=1",
        "image://x/y#f",
        "image://user@x/y",
        "image://user:pw@x/y",
        "image://x:80/y",
        "image://[::1]/y",
        "IMAGE://x/y",
        "Image://x/y",
        "image://X/y",
        "image://x/y z",
        "image://x/\u{e9}",
        "image://x/e\u{301}",
        "image://x/\u{202e}y",
        "image://x/\x1b[2J",
        "image://x/y\\z",
        "image://x\\y",
        "image:\\\\x\\y",
        "file:///etc/passwd",
        "http://x/y",
        "volume:store/../x",
        "javascript:alert(1)",
        "image://../x/y",
        "image://x/~root",
        "image://x/$(id)",
        "image://x/`id`",
        "image://x/;id",
        "image://x/&",
        "image://x/|",
        "image://x/*",
        "image://xn--/y",
        "image://x/\u{ff0e}\u{ff0e}/y",
        "image://169.254.169.254/y",
        "image://0xa9fea9fe/y",
        "image://2852039166/y",
        " image://x/y",
        "image://x/y ",
        "\u{feff}image://x/y",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push(format!("image://x/{}", "a".repeat(1100)));
    texts.push(format!("image://{}/y", "a".repeat(70)));
    texts.push(format!("image://x/{}", "a/".repeat(500)));
    texts.push("image://x/".to_owned() + &"a".repeat(10 << 20));
    for text in texts {
        let shown: String = text.chars().take(60).collect();
        report.try_input(
            "ids",
            format!("{shown:?}"),
            Must::Contained,
            move || match text.parse::<ElementId>() {
                Err(error) if error.to_string().len() > 4096 => {
                    Seen::Escaped("an error as long as the id".to_owned())
                }
                Err(error) => Seen::Refused(error.to_string()),
                Ok(id) if id.as_str() != text => Seen::Escaped(format!("taken as {id}")),
                Ok(id) if id.as_str().contains("..") || id.as_str().contains('%') => {
                    Seen::Escaped(format!("taken: {id}"))
                }
                Ok(id) => Seen::Contained(id.to_string()),
            },
        );
    }
    for text in [
        "",
        "sha256",
        "sha256:",
        "sha256:zz",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha256:../../x",
        "SHA256:00",
    ] {
        report.try_input("checksums", format!("{text:?}"), Must::Refused, move || {
            Seen::of(text.parse::<Checksum>())
        });
    }
    report.try_input("checksums", "upper case", Must::Contained, || {
        Seen::of(format!("sha256:{}", "AB".repeat(32)).parse::<Checksum>())
    });
}

/// Filters that are to take long, much or the stack.
pub(super) fn filters(report: &mut Report) {
    let texts = [
        ("empty field", "==x".to_owned()),
        ("no value", "id==".to_owned()),
        ("unknown field", "nothing==1".to_owned()),
        ("unclosed quote", "id==\"x".to_owned()),
        ("escape of nothing", "id==\"\\".to_owned()),
        ("NUL", "id==\0".to_owned()),
        (
            "regex that backtracks",
            format!("id~=\"({}a)*b\"", "a*".repeat(20)),
        ),
        (
            "regex that grows",
            "id~=\"((((a{100}){100}){100}){100})\"".to_owned(),
        ),
        (
            "regex that nests",
            format!("id~=\"{}{}\"", "(".repeat(5000), ")".repeat(5000)),
        ),
        ("regex of every letter", "id~=\"\\\\p{L}{1000}\"".to_owned()),
        ("regex that is none", "id~=\"[\"".to_owned()),
        ("100,000 terms", vec!["id==a"; 100_000].join(",")),
        ("1 MiB of value", format!("id=={}", "a".repeat(1 << 20))),
        ("deep path", format!("labels.{}==1", "a.".repeat(10_000))),
        ("terminal", "id==\x1b]52;c;cm0=\x07".to_owned()),
    ];
    for (what, text) in texts {
        report.try_input("filters", what, Must::Contained, move || {
            match Filter::<ElementField>::parse(&[text]) {
                Err(error) => Seen::Refused(error.to_string().chars().take(80).collect()),
                Ok(_) => Seen::Contained("taken".to_owned()),
            }
        });
    }
}

/// Rules that name what is never open, or are none.
pub(super) fn egress(report: &mut Report) {
    let destinations = [
        "",
        " ",
        "0",
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/33",
        "10.0.0.1-9",
        "10.0.0.9-10.0.0.1",
        "10.0.0.0-::1",
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "169.254.43518",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "127.0.0.1",
        "127.1",
        "localhost",
        "::1",
        "fe80::1%eth0",
        "fe80::1",
        "ff02::1",
        "255.255.255.255",
        "224.0.0.1",
        "10.0.0.1 }; flush ruleset; {",
        "10.0.0.1\nadd rule",
        "10.0.0.1#",
        "@set",
        "$var",
        "\"10.0.0.1\"",
        "10.0.0.0/-1",
        "10.0.0.0/0x8",
        "1.2.3.4/24/24",
        "01.02.03.04",
        "[::1]",
        "::1/129",
        "1.2.3.4-1.2.3.4-1.2.3.4",
        "\u{ff11}.2.3.4",
    ];
    for destination in destinations {
        rule(
            report,
            format!("to {destination:?}"),
            destination.to_owned(),
            "80".to_owned(),
            Protocol::Tcp,
        );
    }
    for port in [
        "",
        "0",
        "65536",
        "-1",
        "80-79",
        "80-",
        "-",
        "80,90",
        "0x50",
        "http",
        "80 }",
        "80\n",
        "1-65535",
        "99999999999999999999",
        "+80",
    ] {
        rule(
            report,
            format!("port {port:?}"),
            "198.51.100.1".to_owned(),
            port.to_owned(),
            Protocol::Tcp,
        );
    }
    rule(
        report,
        "ports of everything".to_owned(),
        "198.51.100.1".to_owned(),
        "80".to_owned(),
        Protocol::All,
    );
    rule(
        report,
        "ICMP to IPv6".to_owned(),
        "2001:db8::1".to_owned(),
        "80".to_owned(),
        Protocol::Icmp,
    );
    report.try_input("egress", "100,000 destinations", Must::Refused, || {
        let rule = EgressRule {
            destinations: vec!["198.51.100.1".to_owned(); 100_000],
            ports: vec!["80".to_owned()],
            ..EgressRule::default()
        };
        Seen::of(compile("egress", &[rule]))
    });
    report.try_input("egress", "100,000 rules", Must::Refused, || {
        Seen::of(compile("egress", &vec![EgressRule::default(); 100_000]))
    });
}

fn rule(report: &mut Report, what: String, destination: String, port: String, protocol: Protocol) {
    report.try_input("egress", what, Must::Contained, move || {
        let rule = EgressRule {
            protocol,
            destinations: vec![destination],
            ports: vec![port],
            ..EgressRule::default()
        };
        // Whatever is allowed, the list of what is never open is subtracted where rules become the firewall's: it must
        // not be empty and must hold the metadata service.
        if closed().is_empty() {
            return Seen::Escaped("nothing is closed".to_owned());
        }
        match compile("egress", &[rule]) {
            Err(error) if error.to_string().contains('\n') => {
                Seen::Escaped("an error of two lines".to_owned())
            }
            Err(error) => Seen::Refused(error.to_string()),
            Ok(allow) => {
                let ordered = allow.iter().all(|allow| {
                    allow.v4.iter().all(|(from, to)| from <= to)
                        && allow.v6.iter().all(|(from, to)| from <= to)
                });
                match ordered {
                    true => Seen::Contained(format!(
                        "{} ranges",
                        allow.iter().map(|a| a.v4.len() + a.v6.len()).sum::<usize>()
                    )),
                    false => Seen::Escaped("a range that wraps".to_owned()),
                }
            }
        }
    });
}

/// References of images in registries.
pub(super) fn references(report: &mut Report) {
    let texts = [
        "",
        "/",
        "@",
        ":",
        "x",
        "registry.test",
        "registry.test/",
        "registry.test/x",
        "registry.test/../x:1",
        "registry.test/x/../y:1",
        "registry.test/x:..",
        "registry.test/x:",
        "registry.test/x@",
        "registry.test/x@sha256:",
        "registry.test/x@sha256:../../etc",
        "registry.test/X:1",
        "registry.test/x y:1",
        "user:pw@registry.test/x:1",
        "http://registry.test/x:1",
        "file:///etc/passwd",
        "registry.test:80:80/x:1",
        "registry.test/x:1?q",
        "registry.test/x:1#f",
        "registry.test/x%2f..:1",
        "registry.test/x\n:1",
        "registry.test\\x:1",
        "-registry.test/x:1",
        "registry.test/-x:1",
        "registry.test/x:-1",
        "[::1/x:1",
        "registry.test/x@md5:d41d8cd98f00b204e9800998ecf8427e",
    ];
    for text in texts {
        report.try_input(
            "references",
            format!("{text:?}"),
            Must::Contained,
            move || match text.parse::<portlayer_registry::Reference>() {
                Err(error) => Seen::Refused(error.to_string()),
                Ok(reference) if reference.to_string() != text => {
                    Seen::Escaped(format!("taken as {reference}"))
                }
                Ok(reference) if reference.repository().contains("..") => {
                    Seen::Escaped(reference.to_string())
                }
                Ok(reference) => Seen::Contained(reference.to_string()),
            },
        );
    }
}

/// Task definitions.
pub(super) fn definitions(report: &mut Report) {
    let deep = |open: &str, close: &str, count: usize| open.repeat(count) + &close.repeat(count);
    let texts: Vec<(String, Vec<u8>)> = vec![
        ("empty".to_owned(), Vec::new()),
        ("NULs".to_owned(), vec![0; 1000]),
        (
            "arrays in arrays".to_owned(),
            deep("[", "]", 100_000).into_bytes(),
        ),
        (
            "objects in objects".to_owned(),
            deep("{\"a\":", "}", 100_000).into_bytes(),
        ),
        (
            "a number of a million digits".to_owned(),
            vec![b'9'; 1_000_000],
        ),
        (
            "a key twice".to_owned(),
            br#"{"task_guid":"a","task_guid":"../b"}"#.to_vec(),
        ),
        ("not utf-8".to_owned(), b"{\"task_guid\":\"\xff\"}".to_vec()),
        (
            "half a surrogate".to_owned(),
            br#"{"task_guid":"\ud800"}"#.to_vec(),
        ),
        (
            "a path as a guid".to_owned(),
            br#"{"task_guid":"../../etc","domain":"d","task_definition":{}}"#.to_vec(),
        ),
        ("actions in actions".to_owned(), {
            let inner = deep(r#"{"timeout":{"timeout_ms":1,"action":"#, "}}", 2000);
            format!(r#"{{"task_guid":"a","domain":"d","task_definition":{{"action":{inner}}}}}"#)
                .into_bytes()
        }),
        (
            "negative memory".to_owned(),
            br#"{"task_guid":"a","domain":"d","task_definition":{"memory_mb":-1}}"#.to_vec(),
        ),
        (
            "memory beyond numbers".to_owned(),
            br#"{"task_guid":"a","domain":"d","task_definition":{"memory_mb":1e400}}"#.to_vec(),
        ),
        (
            "a million egress rules".to_owned(),
            format!(
                r#"{{"task_guid":"a","task_definition":{{"egress_rules":[{}null]}}}}"#,
                "null,".repeat(1_000_000)
            )
            .into_bytes(),
        ),
    ];
    for (what, text) in texts {
        let as_protobuf = text.clone();
        report.try_input(
            "definitions",
            format!("{what} -> json"),
            Must::Refused,
            move || Seen::of(diego::read_json(&text, &diego::Rules::default())),
        );
        report.try_input(
            "definitions",
            format!("{what} -> protobuf"),
            Must::Contained,
            move || Seen::of(diego::desire_from_protobuf(&as_protobuf)),
        );
    }
    let mut nested = Vec::new();
    for _ in 0..5000 {
        let mut outer = vec![0x0a];
        let mut length = nested.len();
        while length >= 0x80 {
            outer.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
            length >>= 7;
        }
        outer.push(u8::try_from(length).unwrap_or(0));
        outer.extend(&nested);
        nested = outer;
    }
    report.try_input(
        "definitions",
        "messages in messages -> protobuf",
        Must::Contained,
        move || Seen::of(diego::desire_from_protobuf(&nested)),
    );
    report.try_input(
        "definitions",
        "a length beyond the end -> protobuf",
        Must::Refused,
        || {
            Seen::of(diego::desire_from_protobuf(&[
                0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f,
            ]))
        },
    );
}

/// Handles, which callers give back to us as bytes.
pub(super) fn tokens(report: &mut Report) {
    let cases: [(&str, Vec<u8>); 8] = [
        ("empty", Vec::new()),
        ("one byte", vec![1]),
        ("zeros", vec![0; 4096]),
        ("ones", vec![0xff; 4096]),
        (
            "a length of everything",
            [&[1][..], &[0xff; 9], &[1]].concat(),
        ),
        (
            "json",
            b"{\"executor\":\"executor://executors/x\"}".to_vec(),
        ),
        ("text", b"executor://executors/x".to_vec()),
        ("a MiB", vec![0x41; 1 << 20]),
    ];
    for (what, bytes) in cases {
        report.try_input("tokens", what, Must::Refused, move || {
            Seen::of(Handle::from_token(&bytes))
        });
    }
}
