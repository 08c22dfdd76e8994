//! `parquedb login`.

use std::io::{IsTerminal, Read};

use parquedb_mount::config::token_from_file;
use parquedb_mount::model::{ExitCode, Token};
use parquedb_mount::remote::{Remote, RemoteOptions};
use serde_json::json;

use crate::args::LoginArgs;
use crate::common::failure::Failure;
use crate::common::flags::EverywhereFlags;
use crate::common::output::Style;

/// No token is longer.
const MAX_TOKEN_BYTES: u64 = 16 << 10;

pub async fn run(args: &LoginArgs, flags: &EverywhereFlags, style: Style) -> Result<ExitCode, Failure> {
    let token = match (args.token.as_deref(), &flags.token_file) {
        (Some("-"), _) => from_standard_input()?,
        (Some(text), _) => Token::new(text),
        (None, Some(file)) => token_from_file(file)?,
        (None, None) => {
            return Err(Failure::usage(
                "give the token with --token-file FILE, or --token - on standard input",
            ));
        }
    };
    if !token.is_sendable() {
        return Err(Failure::usage("that is no token: it is empty or has characters no token has"));
    }
    let mut context = flags.context(None)?;
    let url = context.choice.url.clone();
    let remote = Remote::new(&url, Some(&token), &RemoteOptions::default())?;
    let me = remote.me().await?;
    context.credentials.store(&url, &token, &me.username)?;
    style.line(format!("Logged in as {} at {}", me.username, remote.url()));
    style.json(&json!({"username": me.username, "remote": remote.url()}));
    Ok(ExitCode::Done)
}

fn from_standard_input() -> Result<Token, Failure> {
    let input = std::io::stdin();
    if input.is_terminal() {
        return Err(Failure::usage(
            "--token - reads a pipe, for example: parquedb login --token - < token-file",
        ));
    }
    let mut text = String::new();
    let read = input.lock().take(MAX_TOKEN_BYTES).read_to_string(&mut text);
    read.map_err(|error| Failure::usage(format!("standard input: {error}")))?;
    Ok(Token::new(&text))
}
