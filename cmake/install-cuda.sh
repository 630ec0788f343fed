#!/bin/sh
# Puts a CUDA compiler into .cuda/ of this clone if there is none: nvcc and what our kernels need, from NVIDIA's wheels in the
# versions of cmake/cuda-requirements.txt. Needs python3 with pip, and the network the first time; no root, no GPU.
#   cmake/install-cuda.sh          does nothing where nvcc is on the PATH, in /usr/local/cuda or in .cuda already
#   cmake/install-cuda.sh --force  installs into .cuda wherever else there is one
set -eu

root="$(cd "$(dirname "$0")/.." && pwd)"
requirements="$root/cmake/cuda-requirements.txt"
cuda="$root/.cuda"

if [ "${1:-}" != "--force" ]; then
  if command -v nvcc >/dev/null 2>&1 || [ -x /usr/local/cuda/bin/nvcc ]; then
    exit 0
  fi
fi
if [ -x "$cuda/bin/nvcc" ] && cmp -s "$requirements" "$cuda/installed"; then
  exit 0
fi

python="$(command -v /usr/bin/python3 || command -v python3 || true)"
if [ -z "$python" ] || ! "$python" -m pip --version >/dev/null 2>&1; then
  echo "$0: needs python3 with pip (Debian: python3-pip). Or put nvcc 13.0 on the PATH, or configure with" >&2
  echo "  -DSTATEHOUSE_CUDA=OFF to build for the CPU only." >&2
  exit 1
fi

echo "Installing a CUDA compiler into $cuda"
rm -rf "$cuda"
mkdir -p "$cuda"
if ! "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target "$cuda/wheels" \
  -r "$requirements" >"$cuda/log" 2>&1; then
  cat "$cuda/log" >&2
  echo "$0: pip could not install $requirements. Check the network, or put nvcc 13.0 on the PATH." >&2
  exit 1
fi

# A toolkit as CMake and nvcc expect it.
toolkit="$cuda/wheels/nvidia/cu13"
for folder in bin include lib nvvm; do
  ln -s "wheels/nvidia/cu13/$folder" "$cuda/$folder"
done
ln -s "wheels/nvidia/cu13/lib" "$cuda/lib64"
mkdir -p "$toolkit/targets/x86_64-linux"
for folder in include lib; do
  ln -s "../../$folder" "$toolkit/targets/x86_64-linux/$folder"
done
ln -s wheels/nvidia/cu13/targets "$cuda/targets"
[ -e "$toolkit/lib64" ] || ln -s lib "$toolkit/lib64"
chmod +x "$toolkit"/bin/* "$toolkit"/nvvm/bin/* 2>/dev/null || true
cp "$requirements" "$cuda/installed"
"$cuda/bin/nvcc" --version | tail -n 2
