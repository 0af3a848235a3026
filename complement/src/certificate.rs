//! The certificate with which a server proves its name to those that trust the suite's authority.

use anyhow::Context as _;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose};

/// A certificate and its private key, PEM.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Makes a new key and has the authority sign that it belongs to `server_name`. Both of the authority's are PEM; its key
/// may be RSA in PKCS #1, which the suite writes, or anything in PKCS #8.
pub(crate) fn issue(server_name: &str, authority: &str, authority_key: &str) -> anyhow::Result<Issued> {
    let authority_key = KeyPair::from_pem(authority_key).context("the authority's key is no private key in PEM")?;
    let issuer = Issuer::from_ca_cert_pem(authority, authority_key)
        .context("the authority's certificate is none, or not in PEM")?;

    let mut params = CertificateParams::new([server_name.to_owned()])
        .with_context(|| format!("{server_name:?} cannot be named in a certificate"))?;
    params.distinguished_name.push(DnType::CommonName, server_name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];

    let key = KeyPair::generate().context("no key could be made")?;
    let certificate = params.signed_by(&key, &issuer).context("the authority's key cannot sign")?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, IsCa, PKCS_RSA_SHA256, RsaKeySize};
    use x509_parser::{extensions::GeneralName, pem::parse_x509_pem};

    use super::*;

    fn authority() -> (String, String) {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Some authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn the_authority_signs_that_the_key_belongs_to_the_name() {
        let (authority, authority_key) = authority();
        let issued = issue("hs1", &authority, &authority_key).unwrap();

        let (_, authority) = parse_x509_pem(authority.as_bytes()).unwrap();
        let authority = authority.parse_x509().unwrap();
        let (_, pem) = parse_x509_pem(issued.certificate.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        certificate.verify_signature(Some(authority.public_key())).unwrap();
        assert_eq!(certificate.issuer(), authority.subject());
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names, [GeneralName::DNSName("hs1")]);

        let key = KeyPair::from_pem(&issued.key).unwrap();
        assert_eq!(certificate.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
    }

    #[test]
    fn each_thing_that_is_wrong_is_named() {
        let (authority, authority_key) = authority();
        let refused = |name: &str, authority: &str, key: &str| issue(name, authority, key).unwrap_err().to_string();
        assert!(refused("hs1", &authority, "nothing").contains("the authority's key"));
        assert!(refused("hs1", "nothing", &authority_key).contains("the authority's certificate"));
        assert!(refused("höhle", &authority, &authority_key).contains("höhle"));
    }
}
