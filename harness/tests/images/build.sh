#!/bin/sh
# Builds the test images beside this file. Needs clang, lld and llvm of one version (22 by default:
# VERSION=22 ./build.sh) and Python 3. The same tools give the same bytes.
set -eu
cd "$(dirname "$0")"
V=${VERSION:-22}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/msvcrt.def" <<'D'
LIBRARY msvcrt.dll
EXPORTS
malloc
free
memcpy
abort
D
cat > "$work/kernel32.def" <<'D'
LIBRARY KERNEL32.dll
EXPORTS
HeapAlloc
GetProcessHeap
not_there
D

for arch in x64 arm64; do
    case $arch in
    x64) triple=x86_64-pc-windows-msvc machine=i386:x86-64 pad=16 flag=0x10 ;;
    arm64) triple=aarch64-pc-windows-msvc machine=arm64 pad=16 flag=0x8 ;;
    esac
    for lib in msvcrt kernel32; do
        llvm-dlltool-$V -m "$machine" -d "$work/$lib.def" -l "$work/$lib.lib"
    done
    cc="clang-$V --target=$triple -c -O1 -fms-hotpatch -ffunction-sections -gcodeview -ffreestanding -fno-builtin
        -fno-stack-protector -funwind-tables"
    link="lld-link-$V /dll /nodefaultlib /brepro /release /functionpadmin:$pad  /nologo
        /opt:noref /opt:noicf"
    for side in base fixed; do
        define=; [ $side = base ] || define=-DFIXED
        # shellcheck disable=SC2086
        $cc $define base.c -o "$work/$side.obj"
        # shellcheck disable=SC2086
        $link /entry:dll_main "$work/$side.obj" "$work/msvcrt.lib" "$work/kernel32.lib" \
            /out:$side-$arch.dll
    done
    for kind in patch older callout0 callout1; do
        case $kind in
        patch) define= sequence=2 ;;
        older) define=-DOLDER sequence=1 ;;
        callout0) define=-DCALLOUT=0 sequence=2 ;;
        callout1) define=-DCALLOUT=9 sequence=2 ;;
        esac
        # shellcheck disable=SC2086
        $cc $define patch.c -o "$work/patch.obj"
        built=
        for pass in first second; do
            # shellcheck disable=SC2086
            python3 table.py "$V" base-$arch.dll $kind "$flag" "$sequence" $built > "$work/table.s"
            clang-$V --target=$triple -c "$work/table.s" -o "$work/table.obj"
            # shellcheck disable=SC2086
            $link /noentry "$work/patch.obj" "$work/table.obj" /out:$kind-$arch.dll
            [ $kind = older ] || built=$kind-$arch.dll
        done
        rm -f "$kind-$arch.lib"
    done
    rm -f base-$arch.lib fixed-$arch.lib
done
