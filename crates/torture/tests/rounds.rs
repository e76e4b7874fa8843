//! A few rounds of each torture; `./dev torture` runs as many as it takes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

/// Runs the program; it must find nothing wrong.
fn torture(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_portlayer-torture"))
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let last = text.lines().last().unwrap();
    let figures: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(figures["wrong"], 0, "{last}");
}

#[test]
fn kill() {
    torture(&["kill", "--rounds", "16"]);
}

#[test]
fn engine() {
    torture(&["engine", "--rounds", "6", "--shims", "4"]);
}

#[test]
fn scale() {
    torture(&[
        "scale",
        "--tasks",
        "3",
        "--snapshots",
        "30",
        "--elements",
        "5000",
    ]);
}

#[test]
fn power() {
    torture(&["power", "--rounds", "100"]);
}

#[test]
fn logs() {
    torture(&["logs", "--rounds", "6"]);
}
