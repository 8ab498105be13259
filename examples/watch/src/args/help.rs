//! The text of `--help`.

pub(crate) const HELP: &str = "\
Prints the events of virtual machines.

Usage: virevent-watch [OPTIONS] [URI]...

  URI   a hypervisor: qemu:///system, test:///default ... (libvirt's own URIs,
        to its daemon), qmp:/run/vm.sock (one QEMU's monitor),
        qmp-dir:/run/qemu (the monitors in a directory), xenstore: or
        xenstore:/path (a Xen host, without libvirt), fake:,
        fake:?replay=FILE&speed=10 (what --record wrote, ten times as fast)
        Several are watched together; each line then has its source.
        Without a URI, a fake hypervisor plays a demo that ends by itself.

What to watch:
  --only KIND,...     only these kinds of event, by the names of
                      virsh event --list: lifecycle, reboot, io-error,
                      block-job ...; other:NUMBER or other:NAME (one without a
                      type of its own), other (all of those), all (whatever the
                      hypervisor can report); default: lifecycle,reboot
  --change NAME,...   of lifecycle events only these changes: existing, defined,
                      undefined, started, suspended, resumed, shutting-down,
                      stopped, pm-suspended, crashed, unknown; other kinds only
                      as --only names them
  --domain NAME|UUID  only this domain; may be given several times
  --no-existing       do not begin with the existing domains
  --resume FILE       begin with what changed since the last run with this file
                      instead of the existing domains, and leave it for the next
                      run; without the file yet, as without the option
  --wait              if a hypervisor is unreachable at the start, do not fail:
                      print a gap and wait until it is reachable
  --verify SECONDS    the interval at which known domains are compared with the
                      hypervisor's list; default: 60; 0: never
  --script FILE       play this script (TOML) on the fake hypervisor; -: the
                      script on standard input
  --record FILE       write every event that the sources deliver, printed or
                      not, to this file, to replay it with fake:?replay=FILE;
                      an older file is replaced

When to end (also at Ctrl-C):
  --count N           after N events; existing domains, synced and gap are not
                      counted
  --for SECONDS       this time after the start; may have a fraction

What to print:
  --utc               times in UTC, not in the local time zone (--json always
                      has UTC)
  --json              one JSON object a line, for programs (docs/json.md)
  --quiet             no events
  --stats             at the end, on stderr, one JSON object: events counted,
                      wall_s and cpu_s from the first to the last of them, and
                      max_rss_kib

  --capacity N        the number of unread events that are held before outdated
                      ones are dropped, which prints a gap; default: 1024
  -h, --help          this text
  -V, --version       the version

Environment:
  VIREVENT_LOG        warn, info or debug: print the library's log on stderr;
                      unset: print only warnings that need an action
  VIREVENT_LIBVIRT_USER, VIREVENT_LIBVIRT_PASSWORD
                      for a libvirt daemon that demands SASL (feature sasl),
                      where libvirt's auth file has no user; nothing is asked

Exit status: 0 after a normal end, 1 if a hypervisor is unreachable or refuses,
or a file cannot be written, 2 if the command line or a recording is wrong.
";
