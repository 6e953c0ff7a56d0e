//! The sweep: takes what nodes left behind (interest, grants that nobody waited for) out of the objects.
//!
//! A node may hold millions of objects. Nothing that a node left behind has an effect, so it is taken out a few objects at
//! a time, between batches; only then is the node's slot used again.

use super::Engine;
use super::nodes::NodeSlot;

/// Chunks of objects swept after each batch.
const CHUNKS_PER_BATCH: usize = 4;

/// One walk over all objects.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// The slots that can be used again after this walk: those of nodes that had left when it began.
    leaving: Vec<NodeSlot>,
    next: usize,
}

impl Engine {
    /// Goes on with the walk, if there is anything to take out.
    pub(super) fn sweep(&mut self) {
        self.sweep_chunks(CHUNKS_PER_BATCH);
    }

    /// Ends the walk under way, and a whole one.
    pub(super) fn sweep_all(&mut self) {
        for _ in 0..2 {
            self.sweep_chunks(usize::MAX);
        }
    }

    fn sweep_chunks(&mut self, chunks: usize) {
        if self.sweep.leaving.is_empty() {
            if self.nodes.left.is_empty() {
                return;
            }
            self.sweep.leaving.clone_from(&self.nodes.left);
            self.sweep.next = 0;
        }
        let end = self.state.objects.chunks();
        let nodes = &self.nodes;
        for chunk in self.sweep.next..self.sweep.next.saturating_add(chunks).min(end) {
            for object in self.state.objects.chunk_mut(chunk) {
                object.interest.remove_if(|node| !nodes.is_attached(node));
                object.locks.drop_holders(|node| !nodes.is_attached(node));
                object.locks.compact(self.now);
            }
        }
        self.sweep.next = self.sweep.next.saturating_add(chunks);
        if self.sweep.next >= end {
            let leaving = std::mem::take(&mut self.sweep.leaving);
            self.nodes.reuse(&leaving);
        }
    }
}
