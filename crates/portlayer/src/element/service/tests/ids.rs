//! Texts that want to be ids: each a typed error with the offset of its fault, before anything could happen.

use crate::element::{ElementId, IdRule};

fn long(count: usize) -> String {
    "a".repeat(count)
}

#[test]
fn hostile_ids_are_refused_where_they_are_wrong() {
    let cases: Vec<(String, usize, IdRule)> = vec![
        (String::new(), 0, IdRule::Shape),
        ("/".into(), 0, IdRule::Shape),
        ("volume".into(), 0, IdRule::Shape),
        ("volume:".into(), 0, IdRule::Shape),
        ("volume:/a/b".into(), 0, IdRule::Shape),
        ("volume:store/../x".into(), 0, IdRule::Shape),
        ("://a/b".into(), 0, IdRule::UnknownKind),
        ("volumes://a/b".into(), 0, IdRule::UnknownKind),
        ("Volume://a/b".into(), 0, IdRule::UnknownKind),
        ("VOLUME://a/b".into(), 0, IdRule::UnknownKind),
        (" volume://a/b".into(), 0, IdRule::UnknownKind),
        ("\nvolume://a/b".into(), 0, IdRule::UnknownKind),
        ("file:///etc/passwd".into(), 0, IdRule::UnknownKind),
        ("http://a/b".into(), 0, IdRule::UnknownKind),
        ("vol\nume://a/b".into(), 0, IdRule::UnknownKind),
        ("volume://".into(), 9, IdRule::Shape),
        ("volume://a".into(), 10, IdRule::Shape),
        ("volume:///b".into(), 9, IdRule::Location),
        ("volume:////b".into(), 9, IdRule::Location),
        ("volume://A/b".into(), 9, IdRule::Location),
        ("volume://aB/b".into(), 10, IdRule::Location),
        ("volume://-a/b".into(), 9, IdRule::Location),
        ("volume://./b".into(), 9, IdRule::Location),
        ("volume://../b".into(), 9, IdRule::Location),
        ("volume://a b/c".into(), 10, IdRule::Location),
        ("volume://a\tb/c".into(), 10, IdRule::Location),
        ("volume://a\nb/c".into(), 10, IdRule::Location),
        ("volume://a\0b/c".into(), 10, IdRule::Location),
        ("volume://ä/b".into(), 9, IdRule::Location),
        ("volume://a\\b/c".into(), 10, IdRule::Location),
        ("volume://[::1]/b".into(), 10, IdRule::Authority),
        ("volume://a:80/b".into(), 10, IdRule::Authority),
        ("volume://user@a/b".into(), 13, IdRule::Authority),
        ("volume://user:pw@a/b".into(), 13, IdRule::Authority),
        ("volume://@a/b".into(), 9, IdRule::Authority),
        ("volume://a%2e/b".into(), 10, IdRule::Percent),
        ("volume://%61/b".into(), 9, IdRule::Percent),
        ("volume://a?x/b".into(), 10, IdRule::Query),
        ("volume://a#x/b".into(), 10, IdRule::Fragment),
        (format!("volume://{}/b", long(64)), 9, IdRule::Location),
        ("volume://a/".into(), 11, IdRule::EmptySegment),
        ("volume://a//b".into(), 11, IdRule::EmptySegment),
        ("volume://a/b/".into(), 13, IdRule::EmptySegment),
        ("volume://a/b//c".into(), 13, IdRule::EmptySegment),
        ("volume://a/.".into(), 11, IdRule::DotSegment),
        ("volume://a/..".into(), 11, IdRule::DotSegment),
        ("volume://a/../b".into(), 11, IdRule::DotSegment),
        ("volume://a/b/../c".into(), 13, IdRule::DotSegment),
        ("volume://a/b/./c".into(), 13, IdRule::DotSegment),
        ("volume://a/../../etc/passwd".into(), 11, IdRule::DotSegment),
        ("volume://a/%2e%2e/b".into(), 11, IdRule::Percent),
        ("volume://a/b%2fc".into(), 12, IdRule::Percent),
        ("volume://a/b%00".into(), 12, IdRule::Percent),
        ("volume://a/%ff%fe".into(), 11, IdRule::Percent),
        ("volume://a/..%2f..%2fetc".into(), 11, IdRule::Character),
        ("volume://a/.hidden".into(), 11, IdRule::Character),
        ("volume://a/...".into(), 11, IdRule::Character),
        ("volume://a/-rf".into(), 11, IdRule::Character),
        ("volume://a/~root".into(), 11, IdRule::Character),
        ("volume://a/b?c".into(), 12, IdRule::Query),
        ("volume://a/?".into(), 11, IdRule::Query),
        ("volume://a/b#c".into(), 12, IdRule::Fragment),
        ("volume://a/b c".into(), 12, IdRule::Character),
        ("volume://a/b\nc".into(), 12, IdRule::Character),
        ("volume://a/b\rc".into(), 12, IdRule::Character),
        ("volume://a/b\tc".into(), 12, IdRule::Character),
        ("volume://a/b\0c".into(), 12, IdRule::Character),
        ("volume://a/b\x1b[31m".into(), 12, IdRule::Character),
        ("volume://a/b\u{202e}c".into(), 12, IdRule::Character),
        ("volume://a/caf\u{e9}".into(), 14, IdRule::Character),
        ("volume://a/cafe\u{301}".into(), 15, IdRule::Character),
        ("volume://a/b\\..\\c".into(), 12, IdRule::Character),
        ("volume://a/b;c".into(), 12, IdRule::Character),
        ("volume://a/$(id)".into(), 11, IdRule::Character),
        ("volume://a/`id`".into(), 11, IdRule::Character),
        ("volume://a/b|c".into(), 12, IdRule::Character),
        ("volume://a/b,c".into(), 12, IdRule::Character),
        ("volume://a/b*".into(), 12, IdRule::Character),
        ("volume://a/b ".into(), 12, IdRule::Character),
        ("volume://a/b\n".into(), 12, IdRule::Character),
        (
            format!("volume://a/{}", long(129)),
            139,
            IdRule::SegmentTooLong,
        ),
        (
            format!("volume://a/b/{}", long(129)),
            141,
            IdRule::SegmentTooLong,
        ),
        (
            format!("volume://a/{}", vec![long(120); 10].join("/")),
            1024,
            IdRule::TooLong,
        ),
        (
            format!("volume://a/{}", long(10 << 20)),
            1024,
            IdRule::TooLong,
        ),
    ];
    assert!(cases.len() >= 60);
    for (text, at, reason) in cases {
        let shown = text.escape_debug().take(60).collect::<String>();
        let error = text.parse::<ElementId>().expect_err(&shown);
        assert_eq!((error.at, error.reason), (at, reason), "{shown}");
        assert!(serde_json::from_value::<ElementId>(serde_json::Value::String(text)).is_err());
    }
}

#[test]
fn good_ids_are_their_own_text() {
    for text in [
        "image://default/docker.io/library/busybox:1.36",
        "image://default/busybox@sha256:0123456789abcdef",
        "volume://a/_",
        "volume://0/0",
        "task://default/a/b/c/d",
        "executor://my-store.1_x/A~b+c",
    ] {
        let id: ElementId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.to_url().as_str(), text);
    }
    let longest = format!("volume://a/{}", vec![long(128); 7].join("/"));
    assert!(longest.parse::<ElementId>().is_ok());
}
