//! Certificate authorities of the operator's own, for servers that no public authority vouches for.
//!
//! They are read once, at start: a server that could reach nobody would look alive.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use reqwest::Certificate;

use crate::{config::Config, ground::cause};

/// Why the authorities of a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("`federation.certificate_authorities`: cannot read {path}: {}", cause::in_words(error))]
    Read { path: PathBuf, error: io::Error },
    #[error("`federation.certificate_authorities`: {0} is not PEM that can be read")]
    Pem(PathBuf),
    #[error("`federation.certificate_authorities`: {0} holds no PEM certificate")]
    Empty(PathBuf),
}

/// Opens the files and reads them: what a start would do.
pub fn check(config: &Config) -> Result<(), AuthorityError> {
    read(&config.federation.certificate_authorities).map(drop)
}

/// All certificates of all files.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Certificate>, AuthorityError> {
    let files = paths.iter().map(|path| read_file(path)).collect::<Result<Vec<_>, _>>()?;
    Ok(files.concat())
}

fn read_file(path: &Path) -> Result<Vec<Certificate>, AuthorityError> {
    let pem = fs::read(path).map_err(|error| AuthorityError::Read { path: path.to_owned(), error })?;
    let certificates = Certificate::from_pem_bundle(&pem).or(Err(AuthorityError::Pem(path.to_owned())))?;
    if certificates.is_empty() { Err(AuthorityError::Empty(path.to_owned())) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_holds_no_authority_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let made = rcgen::generate_simple_self_signed(["example.org".to_owned()]).unwrap().cert.pem();
        fs::write(path("two.pem"), format!("{made}{made}")).unwrap();
        fs::write(path("empty.pem"), "").unwrap();
        fs::write(path("broken.pem"), made.replace("END", "MIDDLE")).unwrap();
        assert_eq!(read(&[path("two.pem"), path("two.pem")]).unwrap().len(), 4);
        let said = |name: &str| read(&[path("two.pem"), path(name)]).unwrap_err().to_string();
        assert!(said("empty.pem").ends_with("empty.pem holds no PEM certificate"), "{}", said("empty.pem"));
        assert!(said("missing.pem").contains("missing.pem: no such file"), "{}", said("missing.pem"));
        assert!(said("broken.pem").contains("broken.pem"), "{}", said("broken.pem"));
    }
}
