{{/* Name of every object: the release's, with the chart's unless the release is called so already. */}}
{{- define "streamapp-operator.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the operator's pods. It can never change: a Deployment's selector is immutable. */}}
{{- define "streamapp-operator.selectorLabels" -}}
app.kubernetes.io/name: streamapp-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "streamapp-operator.labels" -}}
{{ include "streamapp-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: streamapp
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{- end -}}

{{- define "streamapp-operator.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{- define "streamapp-operator.workerImage" -}}
{{- .Values.worker.image | default (printf "streamapp-worker:%s" .Chart.AppVersion) -}}
{{- end -}}

{{/* What the operator does in a namespace with StreamApps: rules of a ClusterRole, or of a Role per watched namespace. */}}
{{- define "streamapp-operator.rules" -}}
# `patch` is for the finalizer in the object's metadata; the spec belongs to its owner and is never written.
- apiGroups: [streamapp.dev]
  resources: [streamapps]
  verbs: [get, list, watch, patch]
- apiGroups: [streamapp.dev]
  resources: [streamapps/status]
  verbs: [patch]
# Clusters that check owner references demand this of whoever makes a StreamApp the owner of its children.
- apiGroups: [streamapp.dev]
  resources: [streamapps/finalizers]
  verbs: [update, patch]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
# Restarts are deletions, one pod at a time; pods are made by their StatefulSet.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
# Workers' configurations are Secrets, and the Kafka credentials that StreamApps name are read. The operator lists and
# watches Secrets with a label selector for its own, and gets the named ones one by one; RBAC knows neither
# labels nor names that are not known beforehand, so the rule is wider than the use. `watchNamespaces` narrows it.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
# Claims are made by their StatefulSet; deletion is for what `retentionPolicy` gives up.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
