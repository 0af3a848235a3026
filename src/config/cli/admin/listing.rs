//! What lists have in common.

use clap::Args;

#[derive(Clone, Copy, Debug, Args)]
pub struct ListFormat {
    /// Print one JSON object a line, with times in milliseconds since 1970
    #[arg(long)]
    pub json: bool,
}
