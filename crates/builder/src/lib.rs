//! Room: builder.
