//! Compares two models on the same queries by an exact paired sign-flip test.

/// The two tail probabilities of a paired comparison, under the hypothesis that the models are equally good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tails {
    /// Probability of a lead at least as large as the one seen.
    pub lead: f64,
    /// Probability of a deficit at least as large as the one seen.
    pub deficit: f64,
}

/// Compares two models by the differences of their counts, one for each independent unit (such as a pair of images with its queries).
///
/// If neither model is better, each difference is as likely with the other sign (Fisher's randomisation test; with differences
/// of ±1 it is McNemar's exact test). The distribution of the sum is computed exactly, so the answer needs no random numbers. Units whose
/// difference is 0 carry no information and drop out.
pub fn sign_flip(differences: &[i32]) -> Tails {
    let total: usize = differences.iter().map(|d| d.unsigned_abs() as usize).sum();
    let observed: i64 = differences.iter().map(|d| i64::from(*d)).sum();
    // The probability of each sum, from -total to total.
    let mut sums = vec![0.0; 2 * total + 1];
    sums[total] = 1.0;
    let mut reach = 0;
    for size in differences.iter().map(|d| d.unsigned_abs() as usize) {
        if size > 0 {
            sums = flipped(&sums, total - reach..=total + reach, size);
            reach += size;
        }
    }
    let place = (total as i64 + observed) as usize;
    Tails {
        lead: sums[place..].iter().sum::<f64>().min(1.0),
        deficit: sums[..=place].iter().sum::<f64>().min(1.0),
    }
}

/// The distribution of the sum after one more unit, which adds or takes `size` with equal probability.
fn flipped(sums: &[f64], reached: std::ops::RangeInclusive<usize>, size: usize) -> Vec<f64> {
    let mut next = vec![0.0; sums.len()];
    for place in reached {
        next[place - size] += sums[place] / 2.0;
        next[place + size] += sums[place] / 2.0;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All sign patterns, counted one by one.
    fn by_hand(differences: &[i32]) -> Tails {
        let observed: i32 = differences.iter().sum();
        let (mut lead, mut deficit) = (0, 0);
        for signs in 0..1u32 << differences.len() {
            let sum: i32 = (differences.iter().enumerate())
                .map(|(unit, d)| if signs >> unit & 1 == 0 { *d } else { -d })
                .sum();
            lead += u32::from(sum >= observed);
            deficit += u32::from(sum <= observed);
        }
        let patterns = f64::from(1u32 << differences.len());
        Tails {
            lead: f64::from(lead) / patterns,
            deficit: f64::from(deficit) / patterns,
        }
    }

    #[test]
    fn the_tails_are_those_of_all_sign_patterns() {
        for differences in [
            &[][..],
            &[0, 0],
            &[1],
            &[1, 1, 1, -1],
            &[2, -1, 0, 1, 3],
            &[-2, -2, 1, -1, 1, 2, -3, 0, 1],
        ] {
            let (fast, slow) = (sign_flip(differences), by_hand(differences));
            // Sums of at most 2⁹ dyadic fractions are exact in an f64.
            assert_eq!(fast, slow, "{differences:?}");
        }
    }

    #[test]
    fn differences_of_one_make_it_mcnemars_exact_test() {
        // 9 of 10 discordant units for one side: (1 + 10) / 2¹⁰.
        let mut differences = vec![1; 9];
        differences.extend([-1, 0, 0, 0]);
        assert_eq!(sign_flip(&differences).lead, 11.0 / 1024.0);
    }
}
