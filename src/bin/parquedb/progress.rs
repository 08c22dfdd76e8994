//! Progress bars on a terminal, and the seed's lines as the work goes on.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parquedb_mount::model::Visibility;
use parquedb_mount::sync::{Event, Reporter};

use crate::common::output::Style;

/// A bar for `bytes` of work, hidden where there is nobody to see it.
pub fn bar(style: Style, what: &'static str, bytes: u64) -> ProgressBar {
    if style != Style::Text || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Prints a run's steps.
pub struct Narrator<F> {
    style: Style,
    /// What to say once the remote was asked.
    found: F,
    bar: Mutex<Option<ProgressBar>>,
}

/// What the remote has, or will have.
pub struct Found<'a> {
    /// `owner/slug`.
    pub reference: &'a str,
    /// The name for people.
    pub name: &'a str,
    /// Who may see it.
    pub visibility: Visibility,
    /// How many collections.
    pub collections: usize,
}

impl<F: Fn(Found<'_>)> Narrator<F> {
    /// Says what `found` says of what the remote has.
    pub fn new(style: Style, found: F) -> Self {
        Self { style, found, bar: Mutex::new(None) }
    }

    fn start_bar(&self, what: &'static str, bytes: u64) {
        *self.bar.lock().unwrap_or_else(|e| e.into_inner()) = Some(bar(self.style, what, bytes));
    }
}

impl<F: Fn(Found<'_>) + Send + Sync> Reporter for Narrator<F> {
    fn report(&self, event: Event<'_>) {
        match event {
            Event::Found { reference, name, visibility, collections } => {
                (self.found)(Found { reference, name, visibility, collections });
            }
            Event::Registered { id } => {
                self.style.line(format!("Database registered: {id}\n"));
                self.style.line("Uploading files...");
            }
            Event::Waiting { error, wait } => {
                let seconds = wait.as_secs_f64();
                self.style.line(format!("  {error}: trying again in {seconds:.0} s"));
            }
            Event::Hashing { bytes } => self.start_bar("Hashing     ", bytes),
            Event::Transferring { bytes, .. } => self.start_bar("Transferring", bytes),
            Event::Progress { bytes } => {
                if let Some(bar) = &*self.bar.lock().unwrap_or_else(|e| e.into_inner()) {
                    bar.inc(bytes);
                }
            }
            Event::Finished => {
                if let Some(bar) = self.bar.lock().unwrap_or_else(|e| e.into_inner()).take() {
                    bar.finish_and_clear();
                }
            }
        }
    }
}
