//! A fast client of a real daemon, for causing events: one call after the other, on one blocking
//! connection.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use virevent_libvirt::wire::xdr::{Reader, Writer};
use virevent_libvirt::wire::{
    Frames, Header, ListAllDomains, Open, RemoteError, StateStats, StatsRequest, kind, message,
    procs, status,
};

const CREATE: i32 = 9;
const DEFINE_XML: i32 = 11;
const DESTROY: i32 = 12;
const RESUME: i32 = 28;
const SUSPEND: i32 = 34;

pub(crate) struct Rpc {
    stream: UnixStream,
    frames: Frames,
    serial: u32,
    /// The domains that this client defined, in the form that calls take.
    domains: HashMap<String, Vec<u8>>,
}

impl Rpc {
    pub(crate) fn open(socket: &Path, uri: &str) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        let mut rpc = Self { stream, frames: Frames::new(), serial: 0, domains: HashMap::new() };
        rpc.call(procs::AUTH_LIST, |_| {});
        rpc.call(procs::CONNECT_OPEN, |args| {
            Open { name: Some(uri.as_bytes()), flags: 0 }.write(args);
        });
        rpc
    }

    pub(crate) fn define(&mut self, name: &str) {
        let xml = format!(
            "<domain type='test'><name>{name}</name><memory>8192</memory>\
             <os><type>hvm</type></os></domain>"
        );
        let domain = self.call(DEFINE_XML, |args| args.string(&xml));
        self.domains.insert(name.into(), domain);
    }

    pub(crate) fn start(&mut self, name: &str) {
        self.on(CREATE, name);
    }

    pub(crate) fn stop(&mut self, name: &str) {
        self.on(DESTROY, name);
    }

    pub(crate) fn suspend(&mut self, name: &str) {
        self.on(SUSPEND, name);
    }

    pub(crate) fn resume(&mut self, name: &str) {
        self.on(RESUME, name);
    }

    /// Makes the calls of a list of this crate. Returns the number of domains.
    pub(crate) fn list(&mut self) -> usize {
        let stats = self.call(procs::CONNECT_GET_ALL_DOMAIN_STATS, |args| {
            StatsRequest { domains: Vec::new(), stats: StatsRequest::STATE, flags: 0 }.write(args);
        });
        self.call(procs::CONNECT_LIST_ALL_DOMAINS, |args| {
            ListAllDomains { need_results: true, flags: ListAllDomains::PERSISTENT }.write(args);
        });
        StateStats::read_all(&mut Reader::new(&stats)).unwrap().len()
    }

    fn on(&mut self, procedure: i32, name: &str) {
        let domain = self.domains[name].clone();
        self.call(procedure, |args| args.raw(&domain));
    }

    fn call(&mut self, procedure: i32, args: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        self.serial += 1;
        let mut call = Vec::new();
        message(&mut call, &Header::call(procedure, self.serial), args);
        self.stream.write_all(&call).unwrap();
        loop {
            while let Some(frame) = self.frames.next_frame().unwrap() {
                if frame.header.kind == kind::REPLY {
                    if frame.header.status != status::OK {
                        let error = RemoteError::read(&mut Reader::new(frame.body));
                        panic!("procedure {procedure}: {error:?}");
                    }
                    return frame.body.to_vec();
                }
            }
            let read = self.stream.read(self.frames.spare()).unwrap();
            assert!(read > 0, "the daemon closed the connection at procedure {procedure}");
            self.frames.filled(read);
        }
    }
}
