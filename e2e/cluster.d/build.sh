# Sourced by e2e/cluster: builds the programs from their Go modules and packs the system images.
# shellcheck shell=bash disable=SC2154  # say, die, here, cache come from e2e/cluster
#
# A module's programs live in $programs/MODULE-HASH, where HASH covers the module's files and the build flags: a change
# of one module rebuilds that module only. A program is there, complete, or not at all.

readonly KUBERNETES_VERSION=1.37.2
readonly GO_MINIMUM=1.26
readonly PROGRESS_EVERY_S=30

# program, module, package. kube-apiserver comes first and alone: it compiles most of what the others share.
readonly PROGRAMS=(
  "kube-apiserver kubernetes k8s.io/kubernetes/cmd/kube-apiserver"
  "kube-controller-manager kubernetes k8s.io/kubernetes/cmd/kube-controller-manager"
  "kube-scheduler kubernetes k8s.io/kubernetes/cmd/kube-scheduler"
  "kubelet kubernetes k8s.io/kubernetes/cmd/kubelet"
  "kube-proxy kubernetes k8s.io/kubernetes/cmd/kube-proxy"
  "kubectl kubernetes k8s.io/kubernetes/cmd/kubectl"
  "etcd kubernetes go.etcd.io/etcd/server/v3"
  "coredns coredns ."
  "helm helm helm.sh/helm/v4/cmd/helm"
  "csi-provisioner csi-provisioner github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner"
  "csi-resizer csi-resizer github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer"
  "loopcsi loopcsi ."
  "pause pause ."
)
readonly PAUSE_IMAGE=localhost/pause:1
readonly COREDNS_IMAGE=localhost/coredns:1
readonly BUSYBOX_IMAGE=localhost/busybox:1

programs=$cache/kubernetes-$KUBERNETES_VERSION
readonly version_package=k8s.io/component-base/version
readonly LINK_FLAGS="-s -w -X $version_package.gitVersion=v$KUBERNETES_VERSION -X $version_package.gitMajor=1 \
-X $version_package.gitMinor=37 -X $version_package.gitTreeState=clean"
readonly BUILD_FLAGS=(-mod=readonly -trimpath -buildvcs=false -ldflags "$LINK_FLAGS")

declare -A module_of=() package_of=() directory_of=()
program_names=()
for line in "${PROGRAMS[@]}"; do
  read -r name module package <<<"$line"
  program_names+=("$name")
  module_of[$name]=$module package_of[$name]=$package
done
unset line name module package

short_hash() { sha256sum | cut -c1-8; }

module_hash() {
  (
    cd "$parts/go/$1"
    printf '%s\n' "${BUILD_FLAGS[@]}"
    sha256sum -- *
  ) | short_hash
}

# Fills directory_of once: a hash for each look-up would cost too much.
find_programs() {
  local module
  for module in $(printf '%s\n' "${module_of[@]}" | sort -u); do
    directory_of[$module]=$programs/$module-$(module_hash "$module")
  done
}

# Prints the path of a program, built or not.
program_path() { printf '%s\n' "${directory_of[${module_of[$1]}]}/$1"; }

list_programs() {
  local name path state
  for name in "${program_names[@]}"; do
    path=$(program_path "$name")
    state=missing
    [[ ! -x $path ]] || state=built
    printf '%-8s %-24s %s\n' "$state" "$name" "$path"
  done
  state=missing
  [[ ! -d $(images_directory) ]] || state=built
  printf '%-8s %-24s %s\n' "$state" "system images" "$(images_directory)"
}

build() {
  mkdir -p "$programs"
  local missing=() name
  for name in "${program_names[@]}"; do
    [[ -x $(program_path "$name") ]] || missing+=("$name")
  done
  if [[ ${#missing[@]} -gt 0 ]]; then
    # Another directory's cluster may be building the same cache.
    exec 8>"$programs.lock"
    flock -n 8 || say "waiting for another build in $programs…"
    flock 8
    check_go
    local number=0 before=$SECONDS
    say "building ${#missing[@]} of ${#program_names[@]} programs; from nothing this takes about 15 minutes on two cores"
    for name in "${missing[@]}"; do
      number=$((number + 1))
      [[ -x $(program_path "$name") ]] || build_program "$name" "$number of ${#missing[@]}"
    done
    say "built in $((SECONDS - before)) s"
    exec 8>&-
  fi
  build_images
}

check_go() {
  command -v go >/dev/null || die "go is missing: install Go $GO_MINIMUM or newer"
  local version
  version=$(go env GOVERSION)
  version=${version#go}
  [[ $(printf '%s\n' "$GO_MINIMUM" "$version" | sort -V | head -1) == "$GO_MINIMUM" ]] ||
    die "go is $version: install Go $GO_MINIMUM or newer"
}

# build_program NAME "n of m"
build_program() {
  local name=$1 turn=$2 path partial log compiler before=$SECONDS next
  path=$(program_path "$name")
  mkdir -p "${path%/*}"
  partial=$(mktemp "${path%/*}/.$name.XXXXXX")
  log=$partial.log
  next=$((SECONDS + PROGRESS_EVERY_S))
  say "  $name ($turn)…"
  (cd "$parts/go/${module_of[$name]}" &&
    CGO_ENABLED=0 GOFLAGS='' GOTOOLCHAIN=local GOWORK=off \
      exec go build "${BUILD_FLAGS[@]}" -o "$partial" "${package_of[$name]}") >"$log" 2>&1 8>&- 9>&- &
  compiler=$!
  # shellcheck disable=SC2064  # the names of now
  trap "abandon_build '$compiler' '$partial'" EXIT
  while kill -0 "$compiler" 2>/dev/null; do
    if ((SECONDS >= next)); then
      say "  $name ($turn): $((SECONDS - before)) s so far"
      next=$((SECONDS + PROGRESS_EVERY_S))
    fi
    sleep 0.2
  done
  if ! wait "$compiler"; then
    tail -n 20 "$log" >&2
    die "go build of $name failed; what is built stays, run it again"
  fi
  chmod 755 "$partial"
  # The rename is what makes it built.
  mv -f "$partial" "$path"
  rm -f "$log"
  trap - EXIT
  say "  $name ($turn): done in $((SECONDS - before)) s, $(($(stat -c %s "$path") >> 20)) MiB"
}

# Jobs in the background do not get the terminal's interrupt: the compiler is ended here.
abandon_build() {
  trap '' INT TERM
  kill "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
  rm -f "$2" "$2.log"
}

# --- system images ----------------------------------------------------------------------------

images_directory() {
  local hash
  hash=$({
    printf '%s\n' "$PAUSE_IMAGE" "$COREDNS_IMAGE" "$BUSYBOX_IMAGE" \
      "${directory_of[pause]}" "${directory_of[coredns]}"
    cat "$parts/mkimage.py" /bin/busybox 2>/dev/null
  } | short_hash)
  printf '%s/images-%s\n' "$programs" "$hash"
}

build_images() {
  local images partial applets
  images=$(images_directory)
  [[ ! -d $images ]] || return 0
  say "packing the system images"
  partial=$(mktemp -d "$programs/.images.XXXXXX")
  mapfile -t applets < <(/bin/busybox --list | grep -vx busybox | sed 's#.*#--symlink=/bin/&:/bin/busybox#')
  "$parts/mkimage.py" --output "$partial/pause.tar" --name "$PAUSE_IMAGE" --user 65532 --entrypoint /pause \
    "$(program_path pause):/pause"
  "$parts/mkimage.py" --output "$partial/coredns.tar" --name "$COREDNS_IMAGE" --entrypoint /coredns \
    "$(program_path coredns):/coredns"
  "$parts/mkimage.py" --output "$partial/busybox.tar" --name "$BUSYBOX_IMAGE" "${applets[@]}" /bin/busybox:/bin/busybox
  mv -T "$partial" "$images" 2>/dev/null || [[ -d $images ]] || die "cannot move the images to $images"
  rm -rf "$partial"
}
