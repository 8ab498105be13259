//! Writing in pieces, so that a client reads one message in many reads.

use std::io;

use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Writes all of `bytes`, at most `piece` of them at a time. `None` writes them in one call.
pub(super) async fn write_in_pieces(
    writer: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    piece: Option<usize>,
) -> io::Result<()> {
    for bytes in bytes.chunks(piece.unwrap_or(bytes.len()).max(1)) {
        writer.write_all(bytes).await?;
        if piece.is_some() {
            // Lets a client in the same thread read before the next piece is written.
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}
