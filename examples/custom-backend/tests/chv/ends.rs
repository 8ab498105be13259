//! The end of a process: netcat owns the socket, so that the kernel says whose it is.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use virevent::EventSourceExt;
use virevent_testkit::assert::{eventually, expect_sequence, until_synced};

use crate::fake::{event, ok, ping, source};

/// Starts a process that serves one connection, and answers in its name that its VM runs.
async fn serve(socket: &Path) -> Child {
    let mut netcat = Command::new("nc")
        .args(["-l", "-U"])
        .arg(socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = netcat.id().unwrap();
    let mut calls = netcat.stdout.take().unwrap();
    let mut replies = netcat.stdin.take().unwrap();
    tokio::spawn(async move {
        let mut read = Vec::new();
        while calls.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
            while let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let call: Vec<u8> = read.drain(..end + 4).collect();
                let reply = match call.starts_with(b"GET /api/v1/vmm.ping") {
                    true => ok(&ping(pid)),
                    false => ok("{\"config\":{},\"state\":\"Running\"}"),
                };
                if replies.write_all(reply.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    });
    eventually("netcat listens", || socket.exists()).await.unwrap();
    netcat
}

#[tokio::test]
#[ignore = "needs nc"]
async fn a_killed_process_is_delivered_as_failed_and_removed() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("web.sock");
    let boot = [event("vm", "booting"), event("vm", "booted")].concat();
    std::fs::write(home.path().join("web.events"), &boot).unwrap();
    let mut process = serve(&socket).await;
    let mut events = source(&socket).subscribe().await.unwrap();
    until_synced(&mut events).await.unwrap();
    process.kill().await.unwrap();
    let expected = [
        "web[*] stopped (failed)",
        "web undefined (removed)",
        "disconnected from chv:* (*web.sock closed the connection: the process has ended)",
    ];
    expect_sequence(&mut events, &expected).await.unwrap();
    // The next process truncates the file.
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(home.path().join("web.events"), &boot).unwrap();
    let _next = serve(&socket).await;
    let expected =
        ["web defined [inferred]", "web[*] started (booted) [inferred]", "synced with chv:*"];
    expect_sequence(&mut events, &expected).await.unwrap();
}
