//! `parquedb service`: a mount as a systemd user service.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use parquedb_mount::config::Dirs;
use parquedb_mount::model::{DbRef, ExitCode};
use serde_json::json;

use crate::args::{ServiceAction, ServiceArgs};
use crate::common::failure::Failure;
use crate::common::output::Style;

/// The unit as it is in the repository.
const UNIT: &str = include_str!("../../../../systemd/parquedb-mount@.service");
const TEMPLATE: &str = "parquedb-mount@.service";

pub fn run(args: &ServiceArgs, style: Style) -> Result<ExitCode, Failure> {
    match &args.action {
        ServiceAction::Install { database, mountpoint, mount_args } => {
            install(&parse(database)?, mountpoint.as_deref(), mount_args, style)
        }
        ServiceAction::Status { database } => {
            status(database.as_deref().map(parse).transpose()?.as_ref(), style)
        }
        ServiceAction::Remove { database } => remove(&parse(database)?, style),
    }
}

fn parse(text: &str) -> Result<DbRef, Failure> {
    text.parse().map_err(|error| Failure::usage(format!("'{text}': {error}")))
}

fn failed(what: impl std::fmt::Display) -> Failure {
    Failure::new(ExitCode::Failure, what.to_string())
}

/// Where the user's own units lie: beside our own settings.
fn units() -> Result<PathBuf, Failure> {
    Ok(Dirs::of_user()?.config.with_file_name("systemd").join("user"))
}

/// A text as part of a unit's name, as systemd-escape(1) writes it.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'/' => escaped.push('-'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' => escaped.push(char::from(byte)),
            b'.' if at > 0 => escaped.push('.'),
            _ => escaped.push_str(&format!("\\x{byte:02x}")),
        }
    }
    escaped
}

fn unit_of(database: &DbRef) -> String {
    format!("parquedb-mount@{}.service", escape(&database.to_string()))
}

/// A value in a unit file, with nothing in it that systemd would take for something else.
fn quoted(text: &str) -> Result<String, Failure> {
    if text.contains(['\n', '\r', '\0']) {
        return Err(Failure::usage(format!("'{}' has a line break in it", text.escape_debug())));
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")))
}

/// An argument among others in a variable that systemd splits into words.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_=./:,@*?+%".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

fn systemctl(args: &[&str]) -> Result<String, Failure> {
    let ran = Command::new("systemctl").arg("--user").args(args).output().map_err(|error| {
        failed(format!(
            "systemctl cannot be run ({error}): without systemd, start 'parquedb-mount OWNER/SLUG DIR' from your session"
        ))
    })?;
    if ran.status.success() {
        return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let said = said.trim().lines().next().unwrap_or("it says no more").to_owned();
    Err(failed(format!("systemctl --user {}: {said}", args.join(" "))))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
    made.map_err(|error| failed(format!("{}: {error}", path.display())))
}

fn install(
    database: &DbRef,
    mountpoint: Option<&Path>,
    args: &[String],
    style: Style,
) -> Result<ExitCode, Failure> {
    let units = units()?;
    // The one that belongs to this program.
    let own = std::env::current_exe().map_err(failed)?;
    let program = own.with_file_name("parquedb-mount");
    if !program.is_file() {
        return Err(failed(format!("there is no {} beside this program", program.display())));
    }
    // Where systemd does not answer, nothing is left behind.
    systemctl(&["daemon-reload"])?;
    let start = format!("ExecStart={} ", quoted(&program.display().to_string())?);
    let mut settings = String::from("[Service]\n");
    if let Some(mountpoint) = mountpoint {
        let absolute = std::path::absolute(mountpoint).map_err(failed)?;
        let value = quoted(&format!("PARQUEDB_MOUNTPOINT={}", absolute.display()))?;
        settings.push_str(&format!("Environment={value}\n"));
    }
    // Where this was said for the shell, it is meant for the service.
    if let Ok(url) = std::env::var("PARQUEDB_REMOTE_URL") {
        settings.push_str(&format!("Environment={}\n", quoted(&format!("PARQUEDB_REMOTE_URL={url}"))?));
    }
    if !args.is_empty() {
        let args: Vec<String> = args.iter().map(|arg| word(arg)).collect();
        let value = quoted(&format!("PARQUEDB_MOUNT_ARGS={}", args.join(" ")))?;
        settings.push_str(&format!("Environment={value}\n"));
    }
    let unit = unit_of(database);
    write(&units.join(TEMPLATE), &UNIT.replace("ExecStart=parquedb-mount ", &start))?;
    write(&units.join(format!("{unit}.d")).join("mount.conf"), &settings)?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", &unit])?;
    // One that runs takes what is new.
    if let Err(failure) = systemctl(&["restart", &unit]) {
        return Err(failed(format!(
            "{}; it is installed, and 'journalctl --user -u {unit}' says why it does not start",
            failure.message
        )));
    }
    style.line(format!("{database} is mounted, and will be whenever you log in ({unit})."));
    style.line("To have it without logging in: loginctl enable-linger");
    style.json(&json!({ "database": database.to_string(), "unit": unit }));
    Ok(ExitCode::Done)
}

fn status(database: Option<&DbRef>, style: Style) -> Result<ExitCode, Failure> {
    let pattern = database.map_or_else(|| "parquedb-mount@*.service".to_owned(), unit_of);
    let listed = systemctl(&["list-units", "--all", "--plain", "--no-legend", "--no-pager", &pattern])?;
    let mut all = Vec::new();
    for unit in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        let shown = systemctl(&[
            "show",
            unit,
            "-p",
            "ActiveState",
            "-p",
            "SubState",
            "-p",
            "StatusText",
            "-p",
            "NRestarts",
        ])?;
        let value = |name: &str| {
            let line = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().to_owned()
        };
        let (active, text) = (value("ActiveState"), value("StatusText"));
        style.line(format!("{unit}  {active} ({})  {text}", value("SubState")));
        all.push(json!({
            "unit": unit,
            "state": active,
            "detail": value("SubState"),
            "status": text,
            "restarts": value("NRestarts").parse::<u64>().ok(),
        }));
    }
    if all.is_empty() {
        let what = database.map_or_else(|| "no mount is".to_owned(), |database| format!("{database} is not"));
        let text = format!("{what} installed as a service: 'parquedb service install OWNER/SLUG' does that");
        return Err(Failure::new(ExitCode::NotFound, text));
    }
    style.json(&json!({ "services": all }));
    Ok(ExitCode::Done)
}

fn remove(database: &DbRef, style: Style) -> Result<ExitCode, Failure> {
    let (units, unit) = (units()?, unit_of(database));
    let settings = units.join(format!("{unit}.d"));
    if !settings.exists() {
        let text = format!("{database} is not installed as a service");
        return Err(Failure::new(ExitCode::NotFound, text));
    }
    systemctl(&["disable", "--now", &unit])?;
    fs::remove_dir_all(&settings).map_err(|error| failed(format!("{}: {error}", settings.display())))?;
    let others = fs::read_dir(&units).map_err(failed)?.flatten();
    let is_ours = |name: &str| name.starts_with("parquedb-mount@") && name != TEMPLATE;
    if !others.into_iter().any(|entry| entry.file_name().to_str().is_some_and(is_ours)) {
        let template = units.join(TEMPLATE);
        fs::remove_file(&template).map_err(|error| failed(format!("{}: {error}", template.display())))?;
    }
    systemctl(&["daemon-reload"])?;
    style.line(format!("{database} is unmounted, and no service any more. What was written there is kept."));
    style.json(&json!({ "database": database.to_string(), "unit": unit }));
    Ok(ExitCode::Done)
}
