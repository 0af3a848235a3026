//! `hearth admin …-media`: the commands about the content repository.

use clap::{Args, Subcommand};

use super::listing::ListFormat;

#[derive(Clone, Debug, Subcommand)]
pub enum MediaCommand {
    /// List media, in the order of their addresses
    ///
    /// Without an option all there are. Times are in UTC; the last use is noted to a day.
    ListMedia(ListMedia),

    /// Show what there is to know of a file, as a JSON object
    ///
    /// Whose it is, where its bytes are, what they look like, whether they were scanned and why nobody may have them, and
    /// which media are equal to it.
    ShowMedia(NamedMedia),

    /// Show how much media take: by store, by origin, and by the users who have most
    ///
    /// Equal files are stored once, and count for each user who has them.
    MediaUsage(ShowMediaUsage),

    /// Put media under quarantine: nobody gets them any more
    ///
    /// What is given is one of these:
    ///   `mxc://example.org/abc`   that file
    ///   64 hexadecimal digits     whatever has this SHA-256, also where it is uploaded again
    ///   `@user:example.org`       whatever this user of this server has uploaded, or will
    ///   `!room:example.org`       whatever the room's events name that are here now, unless they are encrypted
    ///   `example.org`             whatever comes from this other server, or will
    ///
    /// The files stay where they are, and clients that have them already keep them. It holds at once on every node.
    #[command(verbatim_doc_comment)]
    QuarantineMedia(MediaTarget),

    /// Lift a quarantine: what is given is what quarantine-media was given
    UnquarantineMedia(MediaTarget),

    /// List what is under quarantine
    ListQuarantined(ListFormat),

    /// Delete media, for good
    ///
    /// What is given is an address, `mxc://example.org/abc`, or as for quarantine-media a SHA-256, a user or another server,
    /// for all media that these have. Bytes that nothing else has are deleted by a running server some ten minutes later.
    DeleteMedia(DeleteMedia),

    /// Look through a store for what a crash has left, and delete it
    ///
    /// Bytes that no file has are deleted once they are a day old. Files whose bytes are gone are listed, and nothing is
    /// done about them. Without a name every store is looked through.
    SweepMedia(SweepMedia),

    /// Move media from one store to another while servers run
    ///
    /// Both have to be in the configuration of every node, and `media.store` should name the new one, so that nothing else
    /// comes into the old one. Broken off or failed, it goes on where it was when it is called again.
    MoveMedia(MoveMedia),

    /// Have all media go by the first of `media.master_keys`
    ///
    /// What is encrypted with the others is encrypted with it afterwards: only their keys change, so that takes seconds.
    /// The other keys can be removed from the configuration then. What is not encrypted stays so until it is moved to
    /// another store.
    RotateMediaKey,
}

#[derive(Clone, Debug, Args)]
pub struct NamedMedia {
    /// The address, such as `mxc://example.org/abc`
    #[arg(value_name = "MXC")]
    pub uri: String,
}

#[derive(Clone, Debug, Args)]
pub struct ListMedia {
    /// Only what this user has uploaded: the name in front of the colon, or the whole user id
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// Only what has come from this server
    #[arg(long, value_name = "SERVER")]
    pub server: Option<String>,

    /// Only what has this SHA-256, in hexadecimal digits
    #[arg(long, value_name = "SHA256")]
    pub digest: Option<String>,

    /// Only what is under quarantine by its address or because of a room
    #[arg(long)]
    pub quarantined: bool,

    #[command(flatten)]
    pub listing: ListFormat,
}

#[derive(Clone, Debug, Args)]
pub struct ShowMediaUsage {
    /// Only of this user: the name in front of the colon, or the whole user id
    pub name: Option<String>,

    /// How many users at most
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub users: u32,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct MediaTarget {
    /// An address, a SHA-256, a user, a room or another server
    #[arg(value_name = "WHAT")]
    pub target: String,
}

#[derive(Clone, Debug, Args)]
pub struct DeleteMedia {
    #[command(flatten)]
    pub what: MediaTarget,

    /// Don't ask whether it is meant
    #[arg(long)]
    pub yes: bool,
}

#[derive(Clone, Debug, Args)]
pub struct SweepMedia {
    /// Only this store, by its name
    #[arg(value_name = "STORE")]
    pub store: Option<String>,

    /// Only say what there is, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Clone, Debug, Args)]
pub struct MoveMedia {
    /// The name of the store that media are in
    pub from: String,

    /// The name of the store that they go to
    pub to: String,
}
