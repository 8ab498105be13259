//! The macros that make one test for each check.

/// Calls `$then` with `$given` and then the names of all checks.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_checks {
    ($then:path, $($given:tt)*) => {
        $then! {
            $($given)*
            a_new_stream_lists_the_domains_then_synced
            a_start_and_a_stop_are_delivered_in_order_once
            a_new_run_has_a_new_id
            a_pause_and_a_resume_are_delivered
            a_definition_and_its_removal_are_delivered
            a_domain_filter_passes_only_its_domain
            two_subscribers_get_the_same_events
            a_paused_domain_is_listed_as_paused
            a_pause_in_an_outage_is_delivered_once_and_listed
            an_outage_does_not_change_a_paused_domain
            every_lifecycle_event_says_whether_its_domain_persists
            a_definition_persists_until_it_is_removed
            a_table_folded_from_events_equals_the_list
            a_silent_end_is_corrected_by_verification
            a_slow_subscriber_gets_lagged_and_the_final_state
            an_outage_is_a_gap_then_inferred_events_then_synced
            a_restart_in_an_outage_is_a_stop_and_a_start
            unreachable_is_never_stopped
            subscribing_in_an_outage_opens_with_disconnected
            first_subscribe_to_an_unreachable_source_fails_without_wait
            dropping_the_stream_deregisters
            dropping_one_stream_keeps_the_other
            close_returns_once_deregistered
            nothing_is_delivered_after_close
            a_shutdown_ends_the_stream_after_buffered_events
        }
    };
}

/// One `#[tokio::test]` for each check: see the [module](crate::conformance).
#[macro_export]
macro_rules! conformance_tests {
    (paused, ignore = [$($ignored:tt)*], $rig:expr $(,)?) => {
        $crate::__conformance_tests! {
            ($) ($rig) (#[tokio::test(start_paused = true)]) [$($ignored)*]
        }
    };
    (paused, $rig:expr $(,)?) => {
        $crate::__conformance_tests! { ($) ($rig) (#[tokio::test(start_paused = true)]) [] }
    };
    (ignore = [$($ignored:tt)*], $rig:expr $(,)?) => {
        $crate::__conformance_tests! { ($) ($rig) (#[tokio::test]) [$($ignored)*] }
    };
    // One attribute only: with several, the last could be part of the expression.
    (#[$($attribute:tt)*] ignore = [$($ignored:tt)*], $rig:expr $(,)?) => {
        $crate::__conformance_tests! {
            ($) ($rig) (#[tokio::test] #[$($attribute)*]) [$($ignored)*]
        }
    };
    (#[$($attribute:tt)*] $rig:expr $(,)?) => {
        $crate::__conformance_tests! { ($) ($rig) (#[tokio::test] #[$($attribute)*]) [] }
    };
    ($rig:expr $(,)?) => {
        $crate::__conformance_tests! { ($) ($rig) (#[tokio::test]) [] }
    };
}

/// Defines a macro with one arm for each ignored check, and calls it for each check: no macro can
/// compare two names in another way.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    (($d:tt) $rig:tt $attributes:tt [$($reason:literal: $($ignored:ident)+),* $(,)?]) => {
        // Does not compile if a name is not that of a check.
        $($( const _: fn() = || { let _ = $crate::conformance::$ignored; }; )+)*

        macro_rules! __conformance_case {
            $($(
                ($ignored) => {
                    $crate::__conformance_ignored! { $rig $attributes $reason $ignored }
                };
            )+)*
            ($d check:ident) => {
                $crate::__conformance_test! { $rig $attributes $d check }
            };
        }

        $crate::__conformance_checks! { $crate::__conformance_each, }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_each {
    ($($check:ident)+) => {
        $( __conformance_case! { $check } )+
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_test {
    (($rig:expr) ($($attribute:tt)*) $check:ident) => {
        $($attribute)*
        async fn $check() -> ::std::result::Result<(), $crate::Failure> {
            let outcome = $crate::conformance::$check(&$rig).await;
            $crate::conformance::must_be_supported(outcome)
        }
    };
}

/// A test that is ignored with a reason, which the report has. If it is run all the same, it fails
/// if the rig supports the check.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_ignored {
    (($rig:expr) (#[$test:meta] $($attribute:tt)*) $reason:literal $check:ident) => {
        #[$test]
        #[ignore = $reason]
        async fn $check() -> ::std::result::Result<(), $crate::Failure> {
            let outcome = $crate::conformance::$check(&$rig).await;
            $crate::conformance::must_be_unsupported(outcome)
        }
    };
}
