//! The systemd unit: systemd understands all of it, and finds that little is open.
//!
//! `man systemd.exec` describes the sandbox; `systemd-analyze security --offline=true debian/hearth.service` explains the
//! score.

use std::{
    fs,
    process::{Command, Output},
};

/// Ten times the exposure that is allowed, of 100. What is left open is the network, unix sockets and the clock's device.
const MOST_EXPOSED: &str = "--threshold=15";

/// The unit, and the line that starts the server.
const UNIT: &str = include_str!("../../debian/hearth.service");
const INSTALLED: &str = "ExecStart=/usr/bin/hearth ";

/// What `systemd-analyze` says of the unit, if there is one that can look at files.
fn analyze(arguments: &[&str]) -> Option<Output> {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("hearth.service");
    // The program need not be installed where the package puts it.
    let here = concat!("ExecStart=", env!("CARGO_BIN_EXE_hearth"), " ");
    assert!(UNIT.contains(INSTALLED), "the unit starts something else");
    fs::write(&unit, UNIT.replace(INSTALLED, here)).unwrap();
    let said = Command::new("systemd-analyze").args(arguments).arg(&unit).output();
    if said.is_err() {
        eprintln!("SKIPPED: there is no systemd-analyze here, so nobody has looked at debian/hearth.service");
    }
    said.ok()
}

fn text(said: &Output) -> String {
    [&said.stdout[..], &said.stderr[..]].map(String::from_utf8_lossy).concat()
}

#[test]
fn systemd_understands_the_unit() {
    let Some(said) = analyze(&["verify", "--man=no"]) else { return };
    let about_ours: Vec<String> =
        text(&said).lines().filter(|line| line.contains("hearth")).map(ToOwned::to_owned).collect();
    assert!(said.status.success() && about_ours.is_empty(), "{about_ours:?}\n{}", text(&said));
}

#[test]
fn little_is_open_to_the_service() {
    let Some(said) = analyze(&["security", "--offline=true", "--no-pager", MOST_EXPOSED]) else { return };
    let said_of_it = text(&said);
    if said_of_it.contains("unrecognized option") {
        // Older than 250.
        eprintln!("SKIPPED: this systemd-analyze can't look at a file, so nobody has rated debian/hearth.service");
        return;
    }
    assert!(said_of_it.contains("Overall exposure level for hearth.service"), "{said_of_it}");
    assert!(said.status.success(), "{said_of_it}");
}

/// What the score does not look at.
#[test]
fn the_service_is_bounded() {
    for bound in ["MemoryMax=", "LimitNOFILE=", "TasksMax=", "StateDirectory=hearth", "UMask=0077"] {
        assert!(UNIT.lines().any(|line| line.starts_with(bound)), "the unit lacks {bound}");
    }
}
