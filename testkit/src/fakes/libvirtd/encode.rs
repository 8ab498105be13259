//! Bodies of messages.

use virevent_libvirt::wire::Domain;
use virevent_libvirt::wire::xdr::Writer;

/// A domain in libvirt's form.
pub(super) fn wire_domain(domain: &virevent::Domain) -> Domain<'_> {
    // libvirt's id of an inactive domain is -1.
    let id = domain.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(-1);
    Domain { name: domain.name().as_bytes(), uuid: domain.uuid(), id }
}

/// The body that `write` writes.
pub(super) fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut body = Vec::new();
    write(&mut Writer::new(&mut body));
    body
}

pub(super) fn ints(values: &[i32]) -> Vec<u8> {
    written(|body| values.iter().for_each(|value| body.i32(*value)))
}

pub(super) fn string(text: &str) -> Vec<u8> {
    written(|body| body.string(text))
}
