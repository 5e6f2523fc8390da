//! stub
/// t
pub trait Table {
    /// x
    fn id(&self) -> u8;
    /// x
    fn record_size(&self) -> usize;
    /// x
    fn chunk_count(&self) -> usize;
    /// x
    fn chunk_bytes(&self, i: usize) -> &[u8];
    /// x
    fn chunk_is_full(&self, i: usize) -> bool;
    /// x
    fn chunk_dirty(&self, i: usize) -> bool;
    /// x
    fn mark_clean(&mut self, i: usize);
    /// x
    fn append_only(&self) -> bool;
    /// x
    fn load_chunk(&mut self, b: &[u8]) -> Result<(), std::fmt::Error>;
}
