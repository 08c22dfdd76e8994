//! `parquedb serve`.

use std::path::{Path, PathBuf};

use parquedb_mount::config::Dirs;
use parquedb_mount::disk::{Readers, replace_file};
use parquedb_mount::model::{ExitCode, Sha256, Token, is_owner_name};
use parquedb_mount::server::{Server, ServerOptions};
use parquedb_mount::store::{Missing, Store, StoreLocation, random_token};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::ServeArgs;
use crate::common::failure::Failure;
use crate::common::flags::EverywhereFlags;
use crate::common::output::Style;

pub async fn run(args: &ServeArgs, _flags: &EverywhereFlags, style: Style) -> Result<ExitCode, Failure> {
    let location = args.store.location()?;
    // Private databases lie in the store: nobody else on this machine reads its files.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    crate::common::limits::allow_many_files();
    let owner = match &args.owner {
        Some(name) => name.clone(),
        None => login_name(),
    };
    if !is_owner_name(&owner) {
        return Err(Failure::usage(format!(
            "'{owner}' cannot own databases (lower-case letters, digits, inner '-', '_', '.'): use --owner NAME"
        )));
    }
    let store = Store::open_at(&location, Missing::Create, args.writer.writers()).await?;
    let token_file = token_file(&location)?;
    let first_start = !token_file.exists();
    let token = owner_token(&token_file)?;
    store.ensure_account(&owner).await?;
    store.allow_token(&token, &owner).await?;
    if let Some(account) = store.account_of(&token).await?.filter(|account| account.username != owner) {
        return Err(Failure::usage(format!(
            "this store belongs to {}: use --owner {0}, or another --store",
            account.username
        )));
    }
    let options = ServerOptions { public_url: args.public_url.clone() };
    let server = Server::new(store, options).await?;
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .map_err(|error| Failure::usage(format!("cannot listen on {}: {error}", args.listen)))?;
    let address = listener.local_addr().unwrap_or(args.listen);
    let url = args.public_url.as_ref().map_or(format!("http://{address}"), |url| url.to_string());
    let url = url.trim_end_matches('/');
    style.line(format!("ParqueDB server on {url}"));
    style.line(format!("  Store: {location}"));
    style.line(format!("  Owner: {owner}"));
    if first_start {
        style.line(format!("  Owner's token: {} (keep it secret)", token_file.display()));
        style.line("\nThis store is new. Next, in another terminal:\n");
        style.line(format!("  parquedb login --remote {url} --token-file {}", shell_word(&token_file)));
        style.line(format!("  parquedb push --remote {url} --directory ./my-data --slug my-dataset"));
        style.line(format!("  parquedb-mount --remote {url} {owner}/my-dataset /mnt/data\n"));
    }
    if !address.ip().is_loopback() && args.public_url.is_none() {
        tracing::warn!(
            "tokens and data cross the network unencrypted: put a TLS proxy in front (--public-url)"
        );
    }
    style.json(&json!({"url": url, "store": location.to_string(), "owner": owner, "tokenFile": token_file}));
    server.serve(listener, stop_signal()?).await;
    Ok(ExitCode::Done)
}

/// Where the owner's token lies: in a store's directory, or for a store elsewhere in the user's own.
fn token_file(location: &StoreLocation) -> Result<PathBuf, Failure> {
    if let Some(directory) = location.directory() {
        return Ok(directory.join("owner.token"));
    }
    let digits = Sha256::of(location.to_string().as_bytes()).to_string();
    let directory = Dirs::of_user()?.data.join("stores").join(&digits[..16]);
    std::fs::create_dir_all(&directory)
        .map_err(|error| Failure::usage(format!("{}: {error}", directory.display())))?;
    Ok(directory.join("owner.token"))
}

/// The token in the store's file, made now if there is none. Only its owner can read the file.
fn owner_token(file: &Path) -> Result<Token, Failure> {
    let unusable = |error: std::io::Error| Failure::usage(format!("{}: {error}", file.display()));
    match std::fs::read_to_string(file) {
        Ok(text) => {
            let token = Token::new(&text);
            if !token.is_sendable() {
                return Err(Failure::usage(format!(
                    "{} holds no token: remove it to make a new one",
                    file.display()
                )));
            }
            Ok(token)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let token = random_token();
            replace_file(file, format!("{}\n", token.reveal()).as_bytes(), Readers::OwnerOnly)
                .map_err(unusable)?;
            Ok(token)
        }
        Err(error) => Err(unusable(error)),
    }
}

fn login_name() -> String {
    let of_environment =
        ["LOGNAME", "USER"].iter().find_map(|key| std::env::var(key).ok().filter(|v| !v.is_empty()));
    let uid = rustix::process::getuid().as_raw().to_string();
    let of_passwd = || {
        let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
        let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(uid.as_str()))?;
        line.split(':').next().map(str::to_owned)
    };
    of_environment.or_else(of_passwd).unwrap_or_else(|| "owner".into()).to_lowercase()
}

/// A path as a shell takes it.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(&b)) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let cannot = |error| Failure::new(ExitCode::Failure, format!("cannot wait for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
