//! The C runtime's floating point functions, from the host's.

super::provide! {
    "sqrt" => sqrt; "sin" => sin; "cos" => cos; "tan" => tan; "asin" => asin; "acos" => acos;
    "atan" => atan; "exp" => exp; "log" => log; "log2" => log2; "log10" => log10;
    "floor" => floor; "ceil" => ceil; "fabs" => fabs; "trunc" => trunc; "round" => round;
    "pow" => pow; "fmod" => fmod; "atan2" => atan2; "ldexp" => ldexp;
}

macro_rules! of_one {
    ($($name:ident = $method:ident;)*) => {$(
        extern "win64" fn $name(x: f64) -> f64 {
            x.$method()
        }
    )*};
}

of_one! {
    sqrt = sqrt; sin = sin; cos = cos; tan = tan; asin = asin; acos = acos; atan = atan;
    exp = exp; log = ln; log2 = log2; log10 = log10; floor = floor; ceil = ceil; fabs = abs;
    trunc = trunc; round = round;
}

extern "win64" fn pow(x: f64, y: f64) -> f64 {
    x.powf(y)
}

extern "win64" fn fmod(x: f64, y: f64) -> f64 {
    x % y
}

extern "win64" fn atan2(y: f64, x: f64) -> f64 {
    y.atan2(x)
}

extern "win64" fn ldexp(x: f64, exponent: i32) -> f64 {
    x * 2f64.powi(exponent)
}
