//! What comes in pairs, one for each IP version: maps, and global functions.
//!
//! A global function is verified once and by itself (Linux 5.6), not anew for each way that leads to it. It isn't generic, takes numbers and pointers
//! to memory of a known size (Linux 5.13), and may not trust that a pointer isn't null. So that logic is written once all the same, [`global_functions`] makes
//! the two of a pair from one generic function, and a trait by which the right one is called.

/// Makes maps in pairs, and a trait that finds those of an IP version.
macro_rules! maps_of_family {
    ($(#[$doc:meta])* pub trait $trait:ident { $($(#[$what:meta])* $get:ident: $kind:ident, $v4:ident, $v6:ident;)* }) => {
        $(
            #[aya_ebpf::macros::btf_map]
            pub static $v4: $kind<lb_common::abi::Addr4> = <$kind<lb_common::abi::Addr4>>::new();
            #[aya_ebpf::macros::btf_map]
            pub static $v6: $kind<lb_common::abi::Addr6> = <$kind<lb_common::abi::Addr6>>::new();
        )*
        $(#[$doc])*
        pub trait $trait: lb_common::abi::IpVersion {
            $($(#[$what])* fn $get() -> &'static $kind<Self::Addr>;)*
        }
        impl $trait for lb_common::abi::V4 {
            $(#[inline(always)] fn $get() -> &'static $kind<lb_common::abi::Addr4> { &$v4 })*
        }
        impl $trait for lb_common::abi::V6 {
            $(#[inline(always)] fn $get() -> &'static $kind<lb_common::abi::Addr6> { &$v6 })*
        }
    };
}

/// Makes pairs of global functions. `fn name(pointers; numbers) = generic;`: a pointer is written as the name of a type that is generic over addresses.
macro_rules! global_functions {
    ($(#[$doc:meta])* $vis:vis trait $trait:ident: $($base:ident),+ {
        $($(#[$what:meta])* fn $name:ident($($p:ident: $pt:ident),*; $($n:ident: $nt:ty),*) = $body:ident;)*
    }) => {
        $(#[$doc])*
        $vis trait $trait: $($base +)+ {
            $($(#[$what])* fn $name($($p: *mut $pt<Self::Addr>,)* $($n: $nt,)*) -> u32;)*
        }
        global_functions!(@version $trait, V4, Addr4, "4", $($name, $body, ($($p: $pt),*), ($($n: $nt),*);)*);
        global_functions!(@version $trait, V6, Addr6, "6", $($name, $body, ($($p: $pt),*), ($($n: $nt),*);)*);
    };
    (@version $trait:ident, $v:ident, $a:ident, $digit:literal, $($name:ident, $body:ident, $p:tt, $n:tt;)*) => {
        impl $trait for lb_common::abi::$v {
            $(global_functions!(@one $v, $a, $digit, $name, $body, $p, $n);)*
        }
    };
    (@one $v:ident, $a:ident, $digit:literal, $name:ident, $body:ident, ($($p:ident: $pt:ident),*), ($($n:ident: $nt:ty),*)) => {
        #[inline(always)]
        fn $name($($p: *mut $pt<lb_common::abi::$a>,)* $($n: $nt,)*) -> u32 {
            #[unsafe(export_name = concat!("flowpin_", stringify!($name), $digit))]
            #[inline(never)]
            extern "C" fn global($($p: *mut $pt<lb_common::abi::$a>,)* $($n: $nt,)*) -> u32 {
                $body::<lb_common::abi::$v>($($p,)* $($n,)*)
            }
            global($($p,)* $($n,)*)
        }
    };
}

pub(crate) use {global_functions, maps_of_family};
