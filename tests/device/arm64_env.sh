#!/bin/bash
# An arm64 Python with what a device needs, run by an emulator: arm64_env.sh FOLDER
#
# Needs Debian on x86-64 with apt-get, dpkg-deb, pip and python3.11. Nothing is installed: packages
# are unpacked below FOLDER, with an apt state of their own. FOLDER/python runs the guest's Python
# on the CPU model named by ARM64_CPU (cortex-a76 unless given).
set -euo pipefail
root=$(mkdir -p "$1" && cd "$1" && pwd)
[[ -x $root/python ]] && exit 0

# The mirror that this machine already uses.
mirror=$(sed -nE 's#^(URIs:|deb) +(\[[^]]*\] +)?([a-z]+://[^ ]+/debian)/?( .*)?$#\3#p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.sources 2>/dev/null | head -n 1 || true)
[[ $mirror ]] || { echo "no Debian mirror in this machine's apt sources" >&2; exit 1; }

# apt_of ARCHITECTURE SUITE...: an apt that knows one architecture and installs nothing here.
apt_of() {
    local architecture=$1 state=$root/apt-$1
    shift
    mkdir -p "$state"/{lists/partial,archives/partial,sources,preferences}
    : > "$state/status"
    cat > "$state/sources/debian.sources" <<END
Types: deb
URIs: $mirror
Suites: $*
Components: main
Architectures: $architecture
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
    cat > "$state/apt.conf" <<END
Dir::State "$state"; Dir::State::status "$state/status"; Dir::State::lists "$state/lists";
Dir::Cache "$state"; Dir::Cache::archives "$state/archives";
Dir::Etc::sourcelist "/dev/null"; Dir::Etc::sourceparts "$state/sources";
Dir::Etc::preferencesparts "$state/preferences";
APT::Architecture "$architecture"; APT::Architectures { "$architecture"; };
APT::Install-Recommends "false"; APT::Sandbox::User "root"; Acquire::Languages "none";
END
    export APT_CONFIG=$state/apt.conf
    apt-get -qq update
}

# Emulators before version 9 show the guest the host's /proc/cpuinfo, which ONNX Runtime trips over.
apt_of amd64 trixie-backports
(cd "$root" && apt-get -qq download qemu-user)
dpkg-deb --fsys-tarfile "$root"/qemu-user_*.deb | tar -xO ./usr/bin/qemu-aarch64 > "$root/qemu-aarch64"
chmod +x "$root/qemu-aarch64"

apt_of arm64 bookworm
apt-get -qq install -y --download-only python3.11 libstdc++6 libgomp1 libgcc-s1 > /dev/null
mkdir -p "$root/sysroot"
for package in "$root"/apt-arm64/archives/*.deb; do
    dpkg -x "$package" "$root/sysroot"
done
unset APT_CONFIG

# The packages of `edgepack[ort,tflite]` with a wheel for arm64, and their dependencies.
platforms=()
for glibc in 36 35 34 31 28 27 26 24 17; do
    platforms+=(--platform "manylinux_2_${glibc}_aarch64")
done
python3 -m pip install --quiet --no-deps --only-binary=:all: "${platforms[@]}" \
    --platform manylinux2014_aarch64 --python-version 311 --implementation cp \
    --abi cp311 --abi abi3 --abi none \
    --target "$root/sysroot/usr/local/lib/python3.11/dist-packages" \
    Babel ai-edge-litert backports.strenum cffi click flatbuffers inflect kaldifst \
    markdown-it-py mdurl ml_dtypes more-itertools msgspec numpy onnxruntime packaging protobuf \
    psutil pycparser pygments rich safetensors soundfile tokenizers tqdm typeguard typing_extensions

cat > "$root/python.new" <<END
#!/bin/bash
exec "$root/qemu-aarch64" -cpu "\${ARM64_CPU:-cortex-a76}" -L "$root/sysroot" \\
    "$root/sysroot/usr/bin/python3.11" "\$@"
END
chmod +x "$root/python.new"
rm -rf "$root"/apt-* "$root"/*.deb
"$root/python.new" -c 'import platform, onnxruntime, ai_edge_litert.interpreter
assert platform.machine() == "aarch64"'
mv "$root/python.new" "$root/python"
