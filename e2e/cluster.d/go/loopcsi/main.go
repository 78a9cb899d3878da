// loopcsi is a CSI driver for one node. A volume is an XFS filesystem in a sparse file on a loop device: its size is
// real (a full volume answers ENOSPC) and it grows online. XFS, because the resize ioctl of ext4 wants
// CAP_SYS_RESOURCE, which root in a container or small VM often lacks.
//
// It owns the volume files, their mounts and its registration with the kubelet (no node-driver-registrar). It does not
// attach, snapshot or clone, and serves no block volumes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	// mkfs.xfs refuses less. A smaller claim gets this much.
	minimumBytes = 300 << 20
	blockBytes   = 4096
)

type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer

	name, node, dir, socket string
	// One change of a volume file or mount at a time: the sidecars and the kubelet retry in parallel.
	changing sync.Mutex
}

func main() {
	d := &driver{}
	var kubelet string
	flag.StringVar(&kubelet, "kubelet", "/var/lib/kubelet", "the kubelet's root directory")
	flag.StringVar(&d.name, "name", "", "name of the driver")
	flag.StringVar(&d.node, "node", "", "name of the node")
	flag.StringVar(&d.dir, "dir", "", "directory of the volume files")
	flag.Parse()
	if d.name == "" || d.node == "" || d.dir == "" {
		log.Fatal("--name, --node and --dir are needed")
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		log.Fatal(err)
	}
	d.socket = filepath.Join(kubelet, "plugins", d.name, "csi.sock")

	services := grpc.NewServer()
	csi.RegisterIdentityServer(services, d)
	csi.RegisterControllerServer(services, d)
	csi.RegisterNodeServer(services, d)
	listener := listen(d.socket)

	registrar := grpc.NewServer()
	registration.RegisterRegistrationServer(registrar, d)
	registrarListener := listen(filepath.Join(kubelet, "plugins_registry", d.name+"-reg.sock"))
	go func() { log.Fatal(registrar.Serve(registrarListener)) }()

	log.Fatal(services.Serve(listener))
}

func listen(path string) net.Listener {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		log.Fatal(err)
	}
	// A killed driver leaves its socket behind.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

// --- identity ---------------------------------------------------------------------------------

func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.name, VendorVersion: "1"}, nil
}

func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (d *driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{
		{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{
			Type: csi.PluginCapability_Service_CONTROLLER_SERVICE,
		}}},
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{
			Type: csi.PluginCapability_VolumeExpansion_ONLINE,
		}}},
	}}, nil
}

// --- controller -------------------------------------------------------------------------------

func (d *driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	response := &csi.ControllerGetCapabilitiesResponse{}
	for _, kind := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		// Without it csi-provisioner refuses ReadWriteOncePod.
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		response.Capabilities = append(response.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: kind}},
		})
	}
	return response, nil
}

func (d *driver) ValidateVolumeCapabilities(_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if err := supported(request.VolumeCapabilities); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: request.VolumeCapabilities},
	}, nil
}

func (d *driver) CreateVolume(_ context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if err := supported(request.VolumeCapabilities); err != nil {
		return nil, err
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	size, err := d.create(d.file(request.Name), wanted(request.CapacityRange))
	if err != nil {
		return nil, err
	}
	log.Printf("volume %s: %d bytes", request.Name, size)
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: request.Name, CapacityBytes: size}}, nil
}

// create makes the volume file, or finds it from an earlier call, and returns its size.
func (d *driver) create(path string, bytes int64) (int64, error) {
	if existing, err := os.Stat(path); err == nil {
		return existing.Size(), nil
	}
	// The rename makes it a volume: a half-made filesystem never gets its name.
	partial := path + ".part"
	if err := os.Remove(partial); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, internal(err)
	}
	if err := run("truncate", "-s", fmt.Sprint(bytes), partial); err != nil {
		return 0, err
	}
	if err := run("mkfs.xfs", "-q", partial); err != nil {
		return 0, err
	}
	return bytes, internal(os.Rename(partial, path))
}

func (d *driver) DeleteVolume(_ context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if err := os.Remove(d.file(request.VolumeId)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, internal(err)
	}
	log.Printf("volume %s: deleted", request.VolumeId)
	return &csi.DeleteVolumeResponse{}, nil
}

func (d *driver) ControllerExpandVolume(_ context.Context, request *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	path, bytes := d.file(request.VolumeId), wanted(request.CapacityRange)
	existing, err := os.Stat(path)
	if err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	if bytes <= existing.Size() {
		bytes = existing.Size()
	} else if err := os.Truncate(path, bytes); err != nil {
		return nil, internal(err)
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: bytes, NodeExpansionRequired: true}, nil
}

// --- node -------------------------------------------------------------------------------------

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node}, nil
}

func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	response := &csi.NodeGetCapabilitiesResponse{}
	for _, kind := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		response.Capabilities = append(response.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: kind}},
		})
	}
	return response, nil
}

func (d *driver) NodeStageVolume(_ context.Context, request *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	if mounted(request.StagingTargetPath) {
		return &csi.NodeStageVolumeResponse{}, nil
	}
	if err := os.MkdirAll(request.StagingTargetPath, 0o750); err != nil {
		return nil, internal(err)
	}
	// `loop`: mount makes the device and marks it to go away with the mount, also when the node is killed.
	err := run("mount", "-t", "xfs", "-o", "loop,nouuid", d.file(request.VolumeId), request.StagingTargetPath)
	return &csi.NodeStageVolumeResponse{}, err
}

func (d *driver) NodeUnstageVolume(_ context.Context, request *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	return &csi.NodeUnstageVolumeResponse{}, unmount(request.StagingTargetPath)
}

func (d *driver) NodePublishVolume(_ context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	if mounted(request.TargetPath) {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	if err := os.MkdirAll(request.TargetPath, 0o750); err != nil {
		return nil, internal(err)
	}
	if err := run("mount", "--bind", request.StagingTargetPath, request.TargetPath); err != nil {
		return nil, err
	}
	if request.Readonly {
		if err := run("mount", "-o", "remount,bind,ro", request.TargetPath); err != nil {
			return nil, errors.Join(err, unmount(request.TargetPath))
		}
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (d *driver) NodeUnpublishVolume(_ context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	if err := unmount(request.TargetPath); err != nil {
		return nil, err
	}
	if err := os.Remove(request.TargetPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, internal(err)
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (d *driver) NodeExpandVolume(_ context.Context, request *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	source, err := output("findmnt", "-nro", "SOURCE", "-T", request.VolumePath)
	if err != nil {
		return nil, err
	}
	// A bind mount shows as `/dev/loop3[/]`.
	device, _, _ := strings.Cut(source, "[")
	if err := run("losetup", "--set-capacity", device); err != nil {
		return nil, err
	}
	if err := run("xfs_growfs", request.VolumePath); err != nil {
		return nil, err
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: request.GetCapacityRange().GetRequiredBytes()}, nil
}

func (d *driver) NodeGetVolumeStats(_ context.Context, request *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(request.VolumePath, &stat); err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{
			Unit:      csi.VolumeUsage_BYTES,
			Total:     int64(stat.Blocks) * stat.Bsize,
			Available: int64(stat.Bavail) * stat.Bsize,
			Used:      int64(stat.Blocks-stat.Bfree) * stat.Bsize,
		},
		{
			Unit:      csi.VolumeUsage_INODES,
			Total:     int64(stat.Files),
			Available: int64(stat.Ffree),
			Used:      int64(stat.Files - stat.Ffree),
		},
	}}, nil
}

// --- registration with the kubelet ------------------------------------------------------------

func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: d.name, Endpoint: d.socket, SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (d *driver) NotifyRegistrationStatus(_ context.Context, result *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	log.Printf("registered with the kubelet: %v %s", result.PluginRegistered, result.Error)
	return &registration.RegistrationStatusResponse{}, nil
}

// --- files, mounts, programs ------------------------------------------------------------------

func (d *driver) file(volume string) string {
	return filepath.Join(d.dir, filepath.Base(volume)+".img")
}

func supported(capabilities []*csi.VolumeCapability) error {
	for _, capability := range capabilities {
		if capability.GetBlock() != nil {
			return status.Error(codes.InvalidArgument, "volumeMode Block is not supported: use Filesystem")
		}
	}
	return nil
}

// wanted is the asked size, at least the minimum, in whole blocks.
func wanted(capacity *csi.CapacityRange) int64 {
	bytes := max(capacity.GetRequiredBytes(), minimumBytes)
	return (bytes + blockBytes - 1) / blockBytes * blockBytes
}

func mounted(path string) bool { return exec.Command("mountpoint", "-q", path).Run() == nil }

func unmount(path string) error {
	if !mounted(path) {
		return nil
	}
	return run("umount", path)
}

func run(command ...string) error {
	_, err := output(command...)
	return err
}

func output(command ...string) (string, error) {
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return "", status.Errorf(codes.Internal, "%s: %v: %s", strings.Join(command, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

func internal(err error) error {
	if err == nil {
		return nil
	}
	return status.Error(codes.Internal, err.Error())
}
