//! Mappings of this process's own as regions.

use std::sync::Arc;

use super::place::Region;
use crate::sys::map::Mapping;

/// The region that a mapping is; it keeps the mapping.
pub(crate) fn region_of(mapping: Mapping) -> Region {
    let (base, len) = (mapping.base(), mapping.len());
    // SAFETY: 1. the mapping is kept by the region, and touched through it alone. 2. pages are 128-aligned, and mapped lengths fit.
    // 3. who maps read-only only reads, or hands the region on as not writable.
    unsafe { Region::new(base, len, Arc::new(mapping)) }
}
