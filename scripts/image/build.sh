# shellcheck shell=bash
# The parts of scripts/ceremony-image. They need $here, $lock, $update and
# SOURCE_DATE_EPOCH.

# What the image holds besides Debian's essential packages: nothing that brings
# up a network, no compiler, no editor.
image_packages=systemd-sysv,udev,kmod,softhsm2,opensc,opensc-pkcs11,pcscd,libccid

# Kernel modules that stay: keyboards, discs, sticks, readers, screens, printers.
# Everything else goes, above all every network driver; see strip_modules.
kernel_package() {
  apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)$/\1/p' | head -n1
}

# bootstrap TARGET SOURCE... runs mmdebstrap with the machine's own idea of how
# old a package list may be.
bootstrap() {
  local target=$1 valid
  shift
  valid=$(apt-config dump Acquire::Check-Valid-Until | sed -n 's/.*"\(.*\)";/\1/p')
  mmdebstrap --mode=root --variant=essential --format=directory --quiet --include="$image_packages" \
    --aptopt="Acquire::Check-Valid-Until \"${valid:-true}\"" --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt=path-exclude='/usr/share/doc/*' --dpkgopt=path-exclude='/usr/share/man/*' --dpkgopt=path-exclude='/usr/share/locale/*' \
    "${hooks[@]}" bookworm "$target" "$@" >&2
}

# download DIR fetches every package once, signatures checked by apt, and makes
# a package list of its own, so that both builds take the same files.
download() {
  local dir=$1 f
  mkdir -p "$dir"
  echo "ceremony-image: packages from Debian" >&2
  local hooks=(--skip=essential/unlink,cleanup/apt --customize-hook="cp \"\$1\"/var/cache/apt/archives/*.deb '$dir/'")
  bootstrap "$dir/probe" /etc/apt/sources.list.d/*.sources
  rm -rf "$dir/probe"
  (cd "$dir" && apt-get download -qq -o APT::Sandbox::User=root "$(kernel_package)")
  for f in "$dir"/*.deb; do
    dpkg-deb -f "$f"
    echo "Filename: ./${f##*/}"
    echo "Size: $(stat -c %s "$f")"
    echo "SHA256: $(sha256sum <"$f" | cut -d' ' -f1)"
    echo
  done >"$dir/Packages"
  # Essential packages are looked for by the name of the release.
  printf 'Codename: bookworm\nSuite: bookworm\nSHA256:\n %s %s Packages\n' \
    "$(sha256sum <"$dir/Packages" | cut -d' ' -f1)" "$(stat -c %s "$dir/Packages")" >"$dir/Release"
  for f in "$dir"/*.deb; do
    echo "$(dpkg-deb -W --showformat='${Package} ${Version} ${Architecture}' "$f") $(sha256sum <"$f" | cut -d' ' -f1)"
  done | sort >"$dir/lock"
  if [ -z "$update" ] && ! diff -u "$lock" "$dir/lock" >&2; then
    echo "ceremony-image: Debian serves other packages than scripts/image/packages.lock names" >&2
    echo "ceremony-image: hint: read what changed above; then --update-lock, and commit the lock" >&2
    exit 14
  fi
}

# build WORK DEBS BIN makes WORK/image.
build() {
  local work=$1 debs=$2 bin=$3 root=$1/root
  mkdir -p "$work/image"
  echo "ceremony-image: building in $work" >&2
  local hooks=()
  bootstrap "$root" "deb [trusted=yes] copy:$debs ./"
  mkdir "$work/kernel"
  dpkg-deb -x "$debs"/linux-image-*.deb "$work/kernel"
  strip_modules "$work/kernel" "$root"
  install_ours "$root" "$bin"
  strip_root "$root"
  cp "$work"/kernel/boot/vmlinuz-* "$work/image/vmlinuz"
  cp "$work"/kernel/boot/vmlinuz-* "$root/boot/" # the record names its hash
  find "$root" -xdev -newermt "@$SOURCE_DATE_EPOCH" -print0 | xargs -0r touch -h -d "@$SOURCE_DATE_EPOCH"
  (cd "$root" && find . -xdev -print0 | sort -z | cpio --quiet --null --create --format=newc --owner=+0:+0 --reproducible) |
    zstd --quiet -10 --single-thread -o "$work/image/initrd.zst"
  medium "$work" "$root"
  cp "$debs/lock" "$work/image/packages"
}

# strip_modules copies the kernel modules that a ceremony needs, and no network:
# what is not there cannot be loaded.
strip_modules() {
  local from=$1/lib/modules to=$2/usr/lib/modules version
  version=$(ls "$from")
  mkdir -p "$to/$version"
  cp "$from/$version"/modules.{order,builtin,builtin.modinfo} "$to/$version/"
  (
    cd "$from/$version"
    find kernel/drivers/{ata,scsi,nvme,usb,hid,input,cdrom,mmc,gpu/drm,video,char,virtio,block,acpi,platform} \
      kernel/fs/{fat,exfat,isofs,udf,ext4,jbd2,nls,mbcache.ko} kernel/{crypto,lib,arch} -name '*.ko' 2>/dev/null |
      grep -vE '/(net|wireless|bluetooth|rndis|usbnet|cdc_ncm|gadget|nbd|rbd|drbd|aoe)[/._]' |
      cpio --quiet -pdm "$to/$version"
  )
  chroot "$2" /sbin/depmod -a "$version"
}

# install_ours puts keyrite, the settings and the console into the root.
install_ours() {
  local root=$1 bin=$2
  install -m 0755 "$bin"/keyrite "$bin"/keyrite-hsmd "$bin"/keyrite-verify "$root/usr/bin/"
  cp -r --no-preserve=ownership,timestamps "$here"/scripts/image/root/. "$root/"
  chmod 0755 "$root"/usr/lib/keyrite/*
  ln -sf /usr/share/zoneinfo/Etc/UTC "$root/etc/localtime"
  echo ceremony >"$root/etc/hostname"
  ln -sf /lib/systemd/system/keyrite-console.target "$root/etc/systemd/system/default.target"
  # Links by hand: systemctl needs a running system.
  mkdir -p "$root/etc/systemd/system/keyrite-console.target.wants"
  for u in keyrite-console@tty1.service keyrite-console@ttyS0.service; do
    ln -sf /etc/systemd/system/keyrite-console@.service "$root/etc/systemd/system/keyrite-console.target.wants/$u"
  done
  for u in systemd-networkd systemd-resolved systemd-timesyncd getty@ serial-getty@ console-getty systemd-hwdb-update apt-daily; do
    ln -sf /dev/null "$root/etc/systemd/system/$u.service"
  done
  ln -sf /dev/null "$root/etc/systemd/system/apt-daily.timer"
  ln -sf usr/lib/systemd/systemd "$root/init"
  { echo "source $(git -C "$here" rev-parse HEAD)"; (cd "$bin" && sha256sum keyrite keyrite-hsmd keyrite-verify); } >"$root/etc/keyrite-image"
}

# strip_root removes what differs from build to build and what nobody needs.
strip_root() {
  local root=$1
  rm -rf "$root"/var/cache/* "$root"/var/log/* "$root"/var/lib/apt/lists/* "$root"/var/lib/dpkg/*-old "$root"/tmp/* "$root"/run/* \
    "$root"/etc/machine-id "$root"/etc/ssh "$root"/etc/resolv.conf "$root"/etc/apt/sources.list* "$root"/var/lib/systemd/random-seed \
    "$root"/usr/share/{doc,man,info,locale,lintian} "$root"/boot/* "$root"/etc/{passwd,group,shadow,gshadow,subuid,subgid}-
  : >"$root/etc/machine-id"
}

# medium makes an ISO that boots from CD and from a USB stick, BIOS and UEFI.
medium() {
  local work=$1 iso=$1/iso date
  date=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S00)
  mkdir -p "$iso/boot/grub"
  cp "$work/image/vmlinuz" "$work/image/initrd.zst" "$iso/boot/"
  cp "$here/scripts/image/grub.cfg" "$iso/boot/grub/"
  find "$iso" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  grub-mkrescue -o "$work/image/ceremony.iso" "$iso" -- -volid KEYRITE -volume_date uuid "$date" -volume_date all_file_dates "=$SOURCE_DATE_EPOCH" \
    >"$work/grub.log" 2>&1 || { tail -n 20 "$work/grub.log" >&2; exit 1; }
  # grub-mkrescue gives the FAT of the UEFI part a random volume serial, four
  # bytes at offset 39 of that image (FAT specification, BS_VolID).
  local lba
  lba=$(xorriso -indev "$work/image/ceremony.iso" -report_el_torito plain 2>/dev/null | awk '/El Torito boot img/ && $7 == "UEFI" {print $NF}')
  printf KRIT | dd of="$work/image/ceremony.iso" bs=1 seek=$((lba * 2048 + 39)) conv=notrunc status=none
}

# explain says where two builds differ.
explain() {
  local a=$1 b=$2
  echo "ceremony-image: the two builds differ; first differences of the roots:" >&2
  (cd "$a/root" && find . -xdev -type f -print0 | sort -z | xargs -0 sha256sum) >"$a.files"
  (cd "$b/root" && find . -xdev -type f -print0 | sort -z | xargs -0 sha256sum) >"$b.files"
  diff "$a.files" "$b.files" | head -n 20 >&2 || true
}
