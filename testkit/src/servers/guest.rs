//! Guests for a real QEMU: a boot sector of a dozen instructions, without an operating system.

use std::path::Path;

/// A small guest: emulated, 16 MiB, with one disk that holds a boot sector.
#[derive(Clone, Debug)]
pub struct Guest {
    name: String,
    deed: Deed,
    seconds: u8,
}

/// The action of a guest after its boot: one write to a port of QEMU's `pc` machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Halts and stays idle.
    Idle,
    /// Powers itself off (ACPI S5).
    PowerOff,
    /// Resets itself, again after each boot.
    Reset,
    /// Panics and reports it to the hypervisor (pvpanic).
    Panic,
    /// Reports to the hypervisor that it loads a crash kernel (pvpanic), and goes on.
    CrashLoad,
    /// Suspends to memory (ACPI S3), again after each wakeup.
    Sleep,
    /// Suspends to memory (ACPI S3) once, and panics (pvpanic) after the wakeup.
    SleepThenPanic,
    /// Powers itself off as after a suspend to disk (ACPI S4). Nothing is saved.
    Hibernate,
    /// Starts its watchdog and does not reset it: it expires after 2 s.
    Starve,
    /// Reads a sector that fails, in a QEMU that pauses a guest on I/O errors.
    Misread,
    /// Sets the year of its clock to 2030.
    SetClock,
    /// Writes a sector of its disk.
    Write,
    /// Gives 1 MiB to its balloon, which is in slot 5 of the PCI bus.
    Inflate,
}

impl Guest {
    /// A guest that stays idle.
    #[must_use]
    pub fn idle(name: &str) -> Self {
        Self::after(0, name, Deed::Idle)
    }

    /// A guest that does `deed` so many seconds after its boot.
    #[must_use]
    pub fn after(seconds: u8, name: &str, deed: Deed) -> Self {
        Self { name: name.into(), deed, seconds }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The arguments for a QEMU without libvirt, with the disk in the file `disk`.
    pub(super) fn to_args(&self, disk: &Path) -> Vec<String> {
        let disk = disk.display();
        let drive = match self.deed {
            Deed::Misread => format!(
                "file.driver=blkdebug,file.image.driver=file,file.image.filename={disk},\
                 file.inject-error.0.event=read_aio,file.inject-error.0.sector=1,rerror=stop"
            ),
            _ => format!("file={disk}"),
        };
        let drive = format!("{drive},format=raw,if=ide");
        // Emulated, since KVM may be missing, and takes seconds to start in a nested machine.
        let mut args = vec!["-machine", "pc,accel=tcg", "-m", "16", "-drive", &drive];
        args.extend(["-device", "pvpanic"]);
        match self.deed {
            Deed::Starve => args.extend(["-device", "ib700"]),
            Deed::Inflate => args.extend(["-device", "virtio-balloon-pci,id=balloon0,addr=5"]),
            _ => {}
        }
        args.into_iter().map(ToOwned::to_owned).collect()
    }

    /// The contents of its disk: the boot sector, then zeros.
    pub(super) fn disk(&self) -> Vec<u8> {
        let mut disk = self.boot_sector().to_vec();
        disk.resize(64 * 512, 0);
        disk
    }

    /// The first sector of its disk.
    fn boot_sector(&self) -> [u8; 512] {
        let mut code: Vec<u8> = Vec::new();
        // The firmware's wait: an action at once would come before a client has connected.
        if self.seconds > 0 {
            let [low, mid, high, _] = (u32::from(self.seconds) * 1_000_000).to_le_bytes();
            code.extend([0xb4, 0x86]); // mov ah, 86h (wait)
            code.extend([0xb9, high, 0]); // mov cx, microseconds >> 16
            code.extend([0xba, low, mid]); // mov dx, microseconds & 0xffff
            code.extend([0xcd, 0x15]); // int 15h
        }
        match self.deed {
            Deed::Idle => {}
            Deed::PowerOff => {
                code.extend([0xba, 0x04, 0x06]); // mov dx, 604h (PM1a control)
                code.extend([0xb8, 0x00, 0x20]); // mov ax, 2000h (sleep enable, S5)
                code.push(0xef); // out dx, ax
            }
            Deed::Sleep | Deed::Hibernate => {
                let kind = if self.deed == Deed::Sleep { 0x24 } else { 0x28 };
                code.extend([0xba, 0x04, 0x06]); // mov dx, 604h (PM1a control)
                code.extend([0xb8, 0x00, kind]); // mov ax, 2400h or 2800h (sleep enable, S3 or S4)
                code.push(0xef); // out dx, ax
            }
            // The firmware finds no waking vector at the wakeup and boots this sector again. A byte
            // of the CMOS, which survives the reset, marks the second boot.
            Deed::SleepThenPanic => {
                code.extend([0xb0, 0x7f]); // mov al, 7fh (the last byte of the CMOS)
                code.extend([0xe6, 0x70]); // out 70h, al
                code.extend([0xe4, 0x71]); // in al, 71h
                code.extend([0x3c, 0xa5]); // cmp al, a5h
                code.extend([0x74, 0x0d]); // je panic
                code.extend([0xb0, 0xa5]); // mov al, a5h
                code.extend([0xe6, 0x71]); // out 71h, al
                code.extend([0xba, 0x04, 0x06]); // mov dx, 604h (PM1a control)
                code.extend([0xb8, 0x00, 0x24]); // mov ax, 2400h (sleep enable, S3)
                code.push(0xef); // out dx, ax
                code.extend([0xfa, 0xf4]); // cli; hlt
                code.extend([0xba, 0x05, 0x05]); // panic: mov dx, 505h (pvpanic)
                code.extend([0xb0, 0x01]); // mov al, 1 (panicked)
                code.push(0xee); // out dx, al
            }
            Deed::Starve => {
                code.extend([0xba, 0x43, 0x04]); // mov dx, 443h (ib700)
                code.extend([0xb0, 0x0e]); // mov al, 0eh (2 s)
                code.push(0xee); // out dx, al
            }
            Deed::Misread => {
                code.extend([0xb8, 0x01, 0x02]); // mov ax, 0201h (read one sector)
                code.extend([0xbb, 0x00, 0x7e]); // mov bx, 7e00h (to behind this one)
                code.extend([0xb9, 0x02, 0x00]); // mov cx, 2 (cylinder 0, the second sector)
                code.extend([0xba, 0x80, 0x00]); // mov dx, 80h (head 0, the first disk)
                code.extend([0xcd, 0x13]); // int 13h
            }
            Deed::SetClock => {
                code.extend([0xb0, 0x09]); // mov al, 9 (the year)
                code.extend([0xe6, 0x70]); // out 70h, al
                code.extend([0xb0, 0x30]); // mov al, 30h
                code.extend([0xe6, 0x71]); // out 71h, al
            }
            Deed::Write => {
                code.extend([0xb8, 0x01, 0x03]); // mov ax, 0301h (write one sector)
                code.extend([0xbb, 0x00, 0x7e]); // mov bx, 7e00h (from behind this one)
                code.extend([0xb9, 0x05, 0x00]); // mov cx, 5 (cylinder 0, the fifth sector)
                code.extend([0xba, 0x80, 0x00]); // mov dx, 80h (head 0, the first disk)
                code.extend([0xcd, 0x13]); // int 13h
            }
            // The device's configuration behind the registers of a legacy virtio device.
            Deed::Inflate => {
                code.extend([0x66, 0xb8, 0x10, 0x28, 0x00, 0x80]); // mov eax, 80002810h (slot 5, BAR 0)
                code.extend([0xba, 0xf8, 0x0c]); // mov dx, cf8h (PCI configuration address)
                code.extend([0x66, 0xef]); // out dx, eax
                code.extend([0xb2, 0xfc]); // mov dl, fch (PCI configuration data)
                code.extend([0x66, 0xed]); // in eax, dx
                code.extend([0x24, 0xfc]); // and al, fch (a port, without the flags)
                code.extend([0x05, 0x18, 0x00]); // add ax, 24 (actual)
                code.extend([0x89, 0xc2]); // mov dx, ax
                code.extend([0x66, 0xb8, 0x00, 0x01, 0x00, 0x00]); // mov eax, 256 (pages of 4 KiB)
                code.extend([0x66, 0xef]); // out dx, eax
            }
            Deed::Reset => {
                code.extend([0xb0, 0xfe]); // mov al, feh (pulse the reset line)
                code.extend([0xe6, 0x64]); // out 64h, al (keyboard controller)
            }
            Deed::Panic | Deed::CrashLoad => {
                let what = if self.deed == Deed::Panic { 1 } else { 2 };
                code.extend([0xba, 0x05, 0x05]); // mov dx, 505h (pvpanic)
                code.extend([0xb0, what]); // mov al, 1 or 2 (panicked, crash kernel loaded)
                code.push(0xee); // out dx, al
            }
        }
        // Without interrupts a halted guest stays idle.
        code.extend([0xfa, 0xf4]); // cli; hlt
        let mut sector = [0; 512];
        sector[..code.len()].copy_from_slice(&code);
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    /// Its domain XML. QEMU locks the disk while it runs, so two guests cannot share one.
    pub(super) fn to_xml(&self, disk: &Path) -> String {
        let device = match self.deed {
            Deed::Panic | Deed::CrashLoad | Deed::SleepThenPanic => {
                "<memballoon model='none'/><panic model='isa'/>"
            }
            Deed::Starve => "<memballoon model='none'/><watchdog model='ib700'/>",
            Deed::Inflate => {
                "<memballoon model='virtio'><address type='pci' slot='0x05'/></memballoon>"
            }
            _ => "<memballoon model='none'/>",
        };
        format!(
            "<domain type='qemu'>
  <name>{}</name>
  <memory unit='MiB'>16</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{}'/>
      <target dev='hda' bus='ide'/>
    </disk>
    <controller type='usb' model='none'/>
    {device}
  </devices>
</domain>",
            self.name,
            disk.display(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_sector_ends_with_the_signature() {
        let sector = Guest::after(3, "web", Deed::PowerOff).boot_sector();
        assert_eq!(sector[510..], [0x55, 0xaa]);
        // Three seconds: 0x2dc6c0 microseconds.
        assert_eq!(sector[..10], [0xb4, 0x86, 0xb9, 0x2d, 0, 0xba, 0xc0, 0xc6, 0xcd, 0x15]);
    }
}
