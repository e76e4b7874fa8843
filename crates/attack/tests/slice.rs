//! A slice of each attack; `./dev attack` makes all of it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

/// Runs the program; everything must hold.
fn attack(arguments: &[&str]) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_portlayer-attack"))
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn hostile_inputs_are_contained() {
    let figures = attack(&["inputs", "--every", "24"]);
    assert!(figures["inputs"].as_u64().unwrap() > 60, "{figures}");
}

#[test]
fn swapped_links_lead_nowhere() {
    let figures = attack(&["race", "--count", "500"]);
    assert_eq!(figures["outside"], 0);
}
