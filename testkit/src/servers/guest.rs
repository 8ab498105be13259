//! Guests for a real QEMU: no operating system, only a boot sector of a dozen instructions.

use std::path::Path;

/// A small guest: emulated, 16 MiB, with one disk that holds a boot sector.
#[derive(Clone, Debug)]
pub struct Guest {
    name: String,
    deed: Deed,
    seconds: u8,
}

/// What a guest does by itself once it has booted. Each is one write to a port of QEMU's `pc` machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Nothing, for ever.
    Idle,
    /// Powers itself off (ACPI S5).
    PowerOff,
    /// Resets itself, and does so again after each boot.
    Reset,
    /// Panics, and tells the hypervisor (pvpanic).
    Panic,
}

impl Guest {
    /// A guest that does nothing by itself.
    pub fn idle(name: &str) -> Self {
        Self::after(0, name, Deed::Idle)
    }

    /// A guest that does `deed` that many seconds after it has booted.
    pub fn after(seconds: u8, name: &str, deed: Deed) -> Self {
        Self { name: name.into(), deed, seconds }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first sector of its disk.
    pub(super) fn boot_sector(&self) -> [u8; 512] {
        let mut code: Vec<u8> = Vec::new();
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
            Deed::Reset => {
                code.extend([0xb0, 0xfe]); // mov al, feh (pulse the reset line)
                code.extend([0xe6, 0x64]); // out 64h, al (keyboard controller)
            }
            Deed::Panic => {
                code.extend([0xba, 0x05, 0x05]); // mov dx, 505h (pvpanic)
                code.extend([0xb0, 0x01]); // mov al, 1 (panicked)
                code.push(0xee); // out dx, al
            }
        }
        code.extend([0xfa, 0xf4]); // cli; hlt
        let mut sector = [0; 512];
        sector[..code.len()].copy_from_slice(&code);
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    /// Its domain XML. QEMU locks the disk while it runs: no two guests can share one.
    pub(super) fn to_xml(&self, disk: &Path) -> String {
        let panic = if self.deed == Deed::Panic { "<panic model='isa'/>" } else { "" };
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
    <memballoon model='none'/>
    {panic}
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
    fn a_boot_sector_has_the_mark_that_the_firmware_looks_for() {
        let sector = Guest::after(3, "web", Deed::PowerOff).boot_sector();
        assert_eq!(sector[510..], [0x55, 0xaa]);
        // Three seconds: 0x2dc6c0 microseconds.
        assert_eq!(sector[..10], [0xb4, 0x86, 0xb9, 0x2d, 0, 0xba, 0xc0, 0xc6, 0xcd, 0x15]);
    }
}
