//! The tests on a real Cloud Hypervisor are built where `CLOUD_HYPERVISOR` names the program.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(cloud_hypervisor)");
    println!("cargo::rerun-if-env-changed=CLOUD_HYPERVISOR");
    if let Ok(program) = std::env::var("CLOUD_HYPERVISOR") {
        println!("cargo::rustc-cfg=cloud_hypervisor");
        println!("cargo::rustc-env=CLOUD_HYPERVISOR={program}");
    }
}
