//! Values to bytes and back: serde through postcard, and one memory copy for numbers and vectors of numbers.
//!
//! Both sides know the type, and with it which of the two ways its bytes took; the bytes carry no tag. Numbers are native-endian: both
//! sides are processes of one machine.

use std::any::{Any, TypeId};

use bytemuck::Pod;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a value has no bytes, or bytes no value.
pub(crate) type Reason = String;

macro_rules! for_each_number {
    ($call:ident) => {
        $call!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64)
    };
}

/// Size of `T` if it is a plain number: a slice of them is its bytes.
pub(crate) fn number_size<T: 'static>() -> Option<usize> {
    macro_rules! is_number {
        ($($number:ty)*) => { [$(TypeId::of::<$number>()),*].contains(&TypeId::of::<T>()) };
    }
    for_each_number!(is_number).then_some(size_of::<T>())
}

/// The bytes of a number or of a `Vec` of numbers, where they lie.
pub(crate) fn raw<T: 'static>(value: &T) -> Option<&[u8]> {
    let value: &dyn Any = value;
    macro_rules! look {
        ($($number:ty)*) => { $(
            if let Some(vector) = value.downcast_ref::<Vec<$number>>() {
                return Some(bytemuck::cast_slice(vector));
            }
            if let Some(number) = value.downcast_ref::<$number>() {
                return Some(bytemuck::bytes_of(number));
            }
        )* };
    }
    for_each_number!(look);
    None
}

/// A number or `Vec` of numbers of `len` bytes, which `fill` writes. `None` if `T` is neither.
pub(crate) fn from_raw<T: 'static>(
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Option<Result<T, Reason>> {
    from_raw_over(None, len, fill)
}

/// The same, in the memory of `spare` if that is neither too small nor twice too large: it was touched before.
pub(crate) fn from_raw_over<T: 'static>(
    spare: Option<T>,
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Option<Result<T, Reason>> {
    let mut value: Option<T> = spare;
    let slot: &mut dyn Any = &mut value;
    let odd = |size: usize| {
        Some(Err(format!(
            "{len} bytes are no whole number of {size}-byte numbers"
        )))
    };
    macro_rules! look {
        ($($number:ty)*) => { $(
            if let Some(slot) = slot.downcast_mut::<Option<Vec<$number>>>() {
                if !len.is_multiple_of(size_of::<$number>()) {
                    return odd(size_of::<$number>());
                }
                let mut vector = of_length(slot.take(), len / size_of::<$number>());
                fill(bytemuck::cast_slice_mut(&mut vector));
                *slot = Some(vector);
                return value.map(Ok);
            }
            if let Some(slot) = slot.downcast_mut::<Option<$number>>() {
                if len != size_of::<$number>() {
                    return odd(size_of::<$number>());
                }
                let mut number = <$number>::default();
                fill(bytemuck::bytes_of_mut(&mut number));
                *slot = Some(number);
                return value.map(Ok);
            }
        )* };
    }
    for_each_number!(look);
    None
}

/// A vector of `count` numbers, whichever.
fn of_length<N: Clone + Default>(spare: Option<Vec<N>>, count: usize) -> Vec<N> {
    match spare {
        Some(mut vector) if (count..=count.saturating_mul(2)).contains(&vector.capacity()) => {
            vector.resize(count, N::default());
            vector
        }
        // the allocator's fresh zeros cost no pass over the memory
        _ => vec![N::default(); count],
    }
}

/// Where numbers come from.
pub(crate) trait Numbers {
    /// Appends `count` of them to `numbers`; false if there are not so many.
    fn append_to<N: Pod>(self, count: usize, numbers: &mut Vec<N>) -> bool;
}

/// Appends `count` numbers from `source` to `values`. False if `T` is no plain number, or there are not so many.
#[expect(clippy::ptr_arg, reason = "the type of the vector itself is looked at")]
pub(crate) fn append_raw<T: 'static>(
    values: &mut Vec<T>,
    count: usize,
    source: impl Numbers,
) -> bool {
    let numbers: &mut dyn Any = values;
    macro_rules! look {
        ($($number:ty)*) => { $(
            if let Some(numbers) = numbers.downcast_mut::<Vec<$number>>() {
                return source.append_to(count, numbers);
            }
        )* };
    }
    for_each_number!(look);
    false
}

/// Appends the bytes of `value` to `out`; on an error `out` is as it was.
pub(crate) fn encode<T: Serialize + 'static>(value: &T, out: &mut Vec<u8>) -> Result<(), Reason> {
    if let Some(bytes) = raw(value) {
        out.extend_from_slice(bytes);
        return Ok(());
    }
    append(value, out)
}

fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), Reason> {
    let start = out.len();
    let result = postcard::serialize_with_flavor(value, Append(out));
    result.map_err(|error| {
        out.truncate(start);
        explain(&error)
    })
}

/// Appends the bytes of a key: always by serde, so that a `str` has those of a `String`, and a slice those of a vector.
#[cfg(feature = "manager")]
pub(crate) fn encode_key<Q: Serialize + ?Sized>(key: &Q, out: &mut Vec<u8>) -> Result<(), Reason> {
    append(key, out)
}

/// The key that `bytes`, all of them, stand for.
#[cfg(feature = "manager")]
pub(crate) fn decode_key<K: DeserializeOwned>(bytes: &[u8]) -> Result<K, Reason> {
    all_of(postcard::take_from_bytes(bytes))
}

fn all_of<T>(taken: postcard::Result<(T, &[u8])>) -> Result<T, Reason> {
    let (value, rest) = taken.map_err(|error| explain(&error))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(format!("{} bytes were left over", rest.len()))
    }
}

/// Says more than postcard does where it can.
fn explain(error: &postcard::Error) -> Reason {
    match error {
        postcard::Error::SerdeSerCustom => "its Serialize implementation refused this value".to_owned(),
        postcard::Error::SerdeDeCustom => "its Deserialize implementation refused these bytes".to_owned(),
        postcard::Error::WontImplement => {
            "its Deserialize asks what comes next, which the compact encoding does not say (serde's untagged, tag and flatten, or a type \
             such as serde_json::Value); send it as text or bytes instead"
                .to_owned()
        }
        other => other.to_string(),
    }
}

/// Lets postcard append to a borrowed vector.
struct Append<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The value that `bytes`, all of them, stand for.
pub(crate) fn decode<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, Reason> {
    if let Some(value) = from_raw(bytes.len(), |to| to.copy_from_slice(bytes)) {
        return value;
    }
    all_of(postcard::take_from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn there_and_back<T: Serialize + DeserializeOwned + 'static>(value: &T) -> T {
        let mut bytes = b"before".to_vec();
        encode(value, &mut bytes).unwrap();
        decode(&bytes[6..]).unwrap()
    }

    proptest! {
        #[test]
        fn values_come_back_as_they_went(
            number: i64, vector: Vec<f64>, nested: Vec<(String, Option<u32>)>, bytes: Vec<u8>
        ) {
            prop_assert_eq!(there_and_back(&number), number);
            let bits = |vector: &[f64]| vector.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&there_and_back(&vector)), bits(&vector));
            prop_assert_eq!(there_and_back(&nested), nested);
            prop_assert_eq!(there_and_back(&bytes), bytes);
        }

        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes: Vec<u8>) {
            let _ = decode::<u64>(&bytes);
            let _ = decode::<Vec<u32>>(&bytes);
            let _ = decode::<Vec<(String, Option<u32>)>>(&bytes);
        }
    }

    #[test]
    fn a_vector_of_numbers_is_its_own_bytes() {
        assert_eq!(raw(&vec![1_u16, 2]), Some(&[1_u8, 0, 2, 0][..]));
        assert_eq!(raw(&String::from("no number")), None);
        assert_eq!(number_size::<f32>(), Some(4));
        assert_eq!(number_size::<bool>(), None);
    }

    #[test]
    fn memory_serves_again_if_it_is_neither_too_small_nor_twice_too_large() {
        let over = |spare: Vec<u16>, len: usize| {
            let was = spare.as_ptr();
            let vector = from_raw_over(Some(spare), len, |to| to.fill(3));
            let vector: Vec<u16> = vector.unwrap().unwrap();
            assert_eq!(vector, vec![0x0303; len / 2]);
            vector.as_ptr() == was
        };
        assert!(over(vec![9; 100], 200));
        assert!(over(vec![9; 100], 100));
        assert!(!over(vec![9; 100], 98));
        assert!(!over(vec![9; 100], 202));
    }

    #[test]
    fn a_length_that_fits_no_number_is_an_error() {
        assert!(
            decode::<Vec<u64>>(&[1, 2, 3])
                .unwrap_err()
                .contains("whole number")
        );
        assert!(decode::<u32>(&[]).is_err());
    }

    #[test]
    fn what_cannot_be_encoded_leaves_nothing_behind() {
        struct Endless;
        impl Serialize for Endless {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeTuple;
                let mut tuple = serializer.serialize_tuple(2)?;
                tuple.serialize_element("half")?;
                Err(serde::ser::Error::custom("no"))
            }
        }
        let mut out = vec![7];
        assert!(encode(&Endless, &mut out).is_err());
        assert_eq!(out, [7]);
    }
}
