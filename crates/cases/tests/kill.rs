//! The process that runs a task dies at every point of the task's life.

use std::process::Command;

#[test]
fn wherever_it_dies_the_next_one_ends_the_task() {
    let output = Command::new(env!("CARGO_BIN_EXE_portlayer-cases"))
        .arg("kill")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{errors}");
    assert!(told.contains("\"failed\":0"), "{told}");
}
