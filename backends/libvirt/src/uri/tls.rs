//! What a URI says of the transport tls.

use super::params::Params;

/// How to use TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsParams {
    /// The directory of the certificates, instead of libvirt's own places.
    pub(crate) pkipath: Option<String>,
    /// Whether any server is trusted, whatever its certificate says.
    pub(crate) no_verify: bool,
}

impl TlsParams {
    pub(super) fn parse(params: &mut Params) -> Result<Self, String> {
        let pkipath = params.take("pkipath");
        // The working directory of a service is not what its user thinks of.
        if pkipath.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err("pkipath= needs the absolute path of a directory".into());
        }
        let no_verify = params.take_flag("no_verify")? == Some(true);
        // libvirt's client would not check its own certificates before it connects. This one never
        // does: the server's verdict is the one that counts.
        params.take_flag("no_sanity")?;
        Ok(Self { pkipath, no_verify })
    }
}
