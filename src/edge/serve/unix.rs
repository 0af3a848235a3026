//! Binding a unix socket: its file outlives a process that was killed, and must not outlive one that
//! has ended well.
//!
//! Whoever can open the file is believed like a trusted proxy, so who that is, is up to the rights of the file and of
//! its folder.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

pub(super) use std::os::unix::net::SocketAddr as Address;

use super::bind_error::BindError;
use crate::config::ListenAddress;

/// Owner and group may connect: put the reverse proxy into the group.
const MODE: u32 = 0o660;

/// Binds `path`, replacing a socket on which nobody listens any more.
pub(super) fn bind(path: &Path) -> Result<(SocketFile, UnixListener), BindError> {
    let address = || ListenAddress::Unix(path.to_owned());
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(BindError::NotASocket(address())),
        // Whoever answers is alive. A socket that was left behind refuses, because nobody listens on it.
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(BindError::InUse(address())),
        Ok(_) => fs::remove_file(path).map_err(|error| BindError::new(&address(), error))?,
        Err(_) => {}
    }
    bind_new(path).map_err(|error| BindError::new(&address(), error))
}

/// Between the two calls the file has the rights that the umask leaves, which are fewer on common systems.
fn bind_new(path: &Path) -> io::Result<(SocketFile, UnixListener)> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Ok((SocketFile(path.to_owned()), listener))
}

/// The file of a bound socket, removed when this is dropped: before the listener, because while that
/// listens no other process takes the place.
pub(super) struct SocketFile(PathBuf);

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove the socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hearth.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());

        let (file, listener) = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert!(matches!(bind(&path), Err(BindError::InUse(_))));

        drop((file, listener));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "precious").unwrap();

        assert!(matches!(bind(&path), Err(BindError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
