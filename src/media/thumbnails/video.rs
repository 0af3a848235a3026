//! A picture of a video, by a program of the operator's: no decoder of videos is part of this server.
//!
//! Its time and its output are bounded, and with it ends all that it has started.

use std::{io, path::Path, process::Stdio, time::Duration};

use tokio::{io::AsyncReadExt as _, time::timeout};

use crate::{
    error::{Error, Result},
    media::{
        program::Program,
        spool::{Received, Spool},
    },
};

/// Of a picture, in bytes.
const MAX_OUTPUT: u64 = 32 * 1024 * 1024;
const PART: usize = 64 * 1024;

/// What the program has written of a video. None where it has written nothing, too much, or not in time.
pub(super) async fn picture(
    command: &[String],
    video: &Path,
    spool: &Spool,
    time: Duration,
) -> Result<Option<Received>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    let failed = |error: io::Error| Error::broken(format!("`{program}`, which is to make pictures of videos: {error}"));
    let mut running = Program::start(program, arguments, video, &["PATH"], Stdio::piped()).map_err(failed)?;
    let mut incoming = spool.begin().await?;
    let mut output = running.take_output().ok_or_else(|| Error::broken("a program has no output"))?;
    let reading = async {
        let mut part = vec![0; PART];
        loop {
            let length = output.read(&mut part).await.map_err(failed)?;
            let Some(read) = part.get(..length).filter(|read| !read.is_empty()) else { break Ok::<(), Error>(()) };
            incoming.write(read).await?;
            if incoming.bytes() > MAX_OUTPUT {
                break Ok(());
            }
        }
    };
    let read: Option<Result<()>> = timeout(time, reading).await.ok();
    running.end().await.map_err(failed)?;
    let Some(read) = read else {
        tracing::info!(%program, "a picture of a video took too long");
        return Ok(None);
    };
    read?;
    let is_picture = (1..=MAX_OUTPUT).contains(&incoming.bytes());
    if is_picture { incoming.finish().await.map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str, time: Duration) -> Option<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let video = folder.path().join("video");
        std::fs::write(&video, "moving").unwrap();
        let spool = Spool::open(folder.path()).await.unwrap();
        let command = ["sh", "-c", script, "sh", "{}"].map(str::to_owned);
        let received = picture(&command, &video, &spool, time).await.unwrap();
        received.map(|received| std::fs::read(received.path()).unwrap())
    }

    #[tokio::test]
    async fn what_a_program_writes_is_the_picture() {
        let long = Duration::from_mins(1);
        assert_eq!(run("cat \"$1\"; echo ' picture'", long).await.as_deref(), Some(&b"moving picture\n"[..]));
        assert_eq!(run("exit 1", long).await, None);
        assert_eq!(run("echo \"$HEARTH_SECRET$HOME\"", long).await.as_deref(), Some(&b"\n"[..]));
    }

    /// The program, and what it has started.
    #[tokio::test]
    async fn what_goes_on_for_too_long_is_ended_as_a_whole() {
        let endless = "cat /dev/zero & cat /dev/zero";
        assert_eq!(run(endless, Duration::from_mins(1)).await, None);
        assert_eq!(run("sleep 1000 & sleep 1000", Duration::from_millis(100)).await, None);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).await.unwrap();
        let command = ["/nowhere/at/all".to_owned()];
        let failed = picture(&command, folder.path(), &spool, Duration::from_secs(10)).await;
        assert!(matches!(failed, Err(Error::Broken(why)) if why.contains("/nowhere/at/all")));
    }
}
