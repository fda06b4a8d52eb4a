// Package config reads what the node tells the guest at its start.
package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

const maxBytes = 1 << 20

// Config is the JSON object on the guest's standard input.
type Config struct {
	SandboxID   string            `json:"sandbox_id"`
	TemplateID  string            `json:"template_id"`
	Env         map[string]string `json:"env"`
	DefaultUser string            `json:"default_user"`
	// OnlyUser is the one user of a sandbox whose guest runs as that user and cannot become another; "" means that every
	// account may be used.
	OnlyUser string `json:"only_user"`
	// MaxProcesses is the pids limit of the sandbox; 0 means that there is none.
	MaxProcesses int `json:"max_processes"`
	// MemoryMiB and CPUs are the sandbox's limits, which cannot be seen from inside; 0 stands for those of the machine.
	MemoryMiB uint64 `json:"memory_mib"`
	CPUs      int    `json:"cpus"`
	// Network says what programs in the sandbox find where the network would be.
	Network Network `json:"network"`
}

// Read reads one object until the end of source.
func Read(source io.Reader) (*Config, error) {
	text, err := io.ReadAll(io.LimitReader(source, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if len(text) > maxBytes {
		return nil, fmt.Errorf("the configuration is larger than %d bytes", maxBytes)
	}
	config := &Config{}
	if err := json.Unmarshal(text, config); err != nil {
		return nil, fmt.Errorf("parse the configuration: %w", err)
	}
	if config.OnlyUser != "" {
		config.DefaultUser = config.OnlyUser
	}
	if config.DefaultUser == "" {
		config.DefaultUser = "user"
	}
	if config.MaxProcesses < 0 {
		return nil, errors.New("max_processes is negative")
	}
	if err := config.Network.check(); err != nil {
		return nil, err
	}
	for name, value := range config.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
			return nil, fmt.Errorf("env: %q is not a valid variable", name)
		}
	}
	return config, nil
}

// Platform returns the variables that tell a program where it runs.
func (c *Config) Platform() map[string]string {
	return map[string]string{
		"E2B_SANDBOX":     "true",
		"E2B_SANDBOX_ID":  c.SandboxID,
		"E2B_TEMPLATE_ID": c.TemplateID,
	}
}

// Defaults returns the variables that every process gets before those of its own request.
func (c *Config) Defaults() map[string]string {
	all := make(map[string]string, len(c.Env)+3)
	for name, value := range c.Env {
		all[name] = value
	}
	for name, value := range c.Platform() {
		all[name] = value
	}
	return all
}
