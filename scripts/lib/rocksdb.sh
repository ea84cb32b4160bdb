# RocksDB: 340 files of C++ that cargo would compile again for each set of features of the crates beside it. They are compiled once for each
# profile and version, from the sources of the crate that Cargo.lock names, and kept outside the build directory.

rocksdb_version() { sed -n '/^name = "librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p}' "$BPI_ROOT/Cargo.lock"; }

# rocksdb_ready PROFILE: says where the library is, to all later calls of cargo (librocksdb-sys, "README")
rocksdb_ready() {
  local folder
  folder="$BPI_CACHE/rocksdb/$(rocksdb_version)-$1"
  if [ ! -f "$folder/librocksdb.a" ]; then
    step "compile RocksDB, profile $1 (once, some 20 minutes on two cores; kept in $folder)" rocksdb_compile "$1" "$folder"
  fi
  export ROCKSDB_LIB_DIR="$folder" ROCKSDB_STATIC=1
}

rocksdb_compile() { # rocksdb_compile PROFILE FOLDER
  local work="$2.work" library
  mkdir -p "$work" "$2"
  (cd "$BPI_ROOT" && env -u ROCKSDB_LIB_DIR CARGO_TARGET_DIR="$work" cargo build --locked --profile "$1" -p librocksdb-sys) || return
  library="$(find "$work" -path '*/librocksdb-sys-*/out/librocksdb.a' | head -n 1)"
  [ -n "$library" ] || { echo "librocksdb-sys was built and has no librocksdb.a"; return 1; }
  cp "$library" "$2/librocksdb.a.new" && mv "$2/librocksdb.a.new" "$2/librocksdb.a" && rm -rf "$work"
}
