//! Embeddings in 8 bits or in 1 bit a value, for indices that hold millions of them.

/// Standard deviations of an embedding's values that 8 bits reach to, where the checkpoint was not calibrated. The values of a unit vector
/// of `dim` values have the mean square 1 / dim.
const REACH: f32 = 4.0;

/// The largest magnitude that 8 bits can express in embeddings of `dim` values, for a checkpoint without a measured one.
pub fn default_range(dim: usize) -> f32 {
    (REACH / (dim.max(1) as f32).sqrt()).min(1.0)
}

/// The range for the first `kept` of `dim` values, normalised again: these grow by √(dim / kept) where all values are of a size.
pub fn range_of_first(range: f32, dim: usize, kept: usize) -> f32 {
    (range * (dim as f32 / kept.max(1) as f32).sqrt()).min(1.0)
}

/// The step between two neighbouring 8-bit values: a value is about its number times this.
pub fn step(range: f32) -> f32 {
    range / 127.0
}

/// Each value as a whole number of steps, from −127 to 127. Values beyond `range` are cut off there.
pub fn to_int8(values: &[f32], range: f32) -> Vec<i8> {
    let quantized = |value: &f32| (value / step(range)).round().clamp(-127.0, 127.0) as i8;
    values.iter().map(quantized).collect()
}

/// As [`to_int8`], plus 128: from 1 to 255.
pub fn to_uint8(values: &[f32], range: f32) -> Vec<u8> {
    let shifted = |value: i8| (i16::from(value) + 128) as u8;
    to_int8(values, range).into_iter().map(shifted).collect()
}

/// One bit a value: whether it is positive. The first value is the highest bit of the first byte; the last byte is filled up with zeros.
pub fn to_bits(values: &[f32]) -> Vec<u8> {
    let byte = |eight: &[f32]| {
        let bits = eight.iter().enumerate();
        bits.fold(0, |byte, (place, value)| {
            byte | u8::from(*value > 0.0) << (7 - place)
        })
    };
    values.chunks(8).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bits_are_the_signs_highest_first_and_filled_up() {
        let values = [1.0, -1.0, 0.5, 0.0, -0.1, 0.1, 0.1, -1.0, 1.0];
        assert_eq!(to_bits(&values), [0b1010_0110, 0b1000_0000]);
    }

    proptest! {
        /// Half a step is what rounding costs; the rest is room for the rounding of f32.
        #[test]
        fn eight_bits_are_off_by_half_a_step(values in prop::collection::vec(-0.3f32..0.3, 1..64)) {
            let range = 0.3;
            for (value, number) in values.iter().zip(to_int8(&values, range)) {
                prop_assert!((value - f32::from(number) * step(range)).abs() <= 0.501 * step(range));
            }
            let shifted = to_uint8(&values, range);
            for (number, signed) in shifted.iter().zip(to_int8(&values, range)) {
                prop_assert_eq!(i16::from(*number), i16::from(signed) + 128);
            }
        }
    }

    #[test]
    fn the_range_takes_all_numbers_and_values_beyond_it_are_cut_off() {
        assert_eq!(to_int8(&[0.5, -0.5, 0.25], 0.5), [127, -127, 64]);
        assert_eq!(to_int8(&[2.0, -2.0], 0.5), [127, -127]);
        assert_eq!(to_uint8(&[2.0, -2.0], 0.5), [255, 1]);
    }

    #[test]
    fn fewer_values_of_a_unit_vector_have_a_wider_range() {
        assert_eq!(range_of_first(0.1, 128, 32), 0.2);
        assert_eq!(range_of_first(0.9, 128, 32), 1.0);
    }
}
