package manifests

// text is the template. Values that are no plain words by their grammar go
// through q.
const text = `[[range .Head]]#[[if .]] [[.]][[end]]
[[end]]---
apiVersion: v1
kind: ConfigMap
metadata:
  name: [[.Name]]-config
  [[- template "meta" .]]
data:
  buildkitd.toml: |
    [[- range .Config]]
    [[.]]
    [[- end]]
[[- range .Secrets]]
---
[[.]]
[[- end]]
[[- if ne .Access "none"]]
---
# For clients that run in the cluster; their pods need no kubeconfig.
apiVersion: v1
kind: ServiceAccount
metadata:
  name: [[.Name]]-client
  [[- template "meta" .]]
---
# What berth asks for, and nothing else: which pods there are, and a way into
# these ones. Pods cannot be listed by name.
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: [[.Name]]-client
  [[- template "meta" .]]
rules:
  - apiGroups: [apps]
    resources: [statefulsets]
    resourceNames:
      - [[q .Name]]
    verbs: [get]
  - apiGroups: [""]
    resources: [services]
    resourceNames:
      - [[q .Name]]
    verbs: [get]
  - apiGroups: [""]
    resources: [pods]
    verbs: [get, list]
  - apiGroups: [""]
    resources: [[if eq .Access "exec"]][pods/exec][[else]][pods/portforward][[end]]
    resourceNames:
      [[- range .Pods]]
      - [[.]]
      [[- end]]
    verbs: [create]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: [[.Name]]-client
  [[- template "meta" .]]
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: [[.Name]]-client
subjects:
  - kind: ServiceAccount
    name: [[.Name]]-client
    namespace: [[q .Namespace]]
[[- end]]
---
# Headless: it gives each pod a name, [[.Name]]-0.[[.Name]] and so on. A pod that is
# starting or ending keeps its name; berth asks itself who is ready.
apiVersion: v1
kind: Service
metadata:
  name: [[q .Name]]
  [[- template "meta" .]]
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    [[- template "labels4" .]]
  [[- if .TLS]]
  ports:
    - name: buildkit
      port: [[.Port]]
      targetPort: buildkit
  [[- end]]
---
# Nodes are drained one daemon at a time; one that does not work holds up nobody.
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: [[q .Name]]
  [[- template "meta" .]]
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      [[- template "labels6" .]]
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: [[q .Name]]
  [[- template "meta" .]]
spec:
  serviceName: [[q .Name]]
  replicas: [[.Replicas]]
  podManagementPolicy: Parallel # the daemons know nothing of each other
  selector:
    matchLabels:
      [[- template "labels6" .]]
  template:
    metadata:
      labels:
        [[- template "labels8" .]]
      annotations:
        # Pods are replaced when the content changes, which buildkitd reads once.
        checksum/config: [[q .ConfigSum]]
        [[- if .TLS]]
        checksum/certs: [[q .TLS]]
        [[- end]]
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      # What running builds have to end when the pod is taken away.
      terminationGracePeriodSeconds: [[.Grace]]
      [[- if .Rootless]]
      securityContext:
        fsGroup: 1000
        fsGroupChangePolicy: OnRootMismatch
      [[- end]]
      [[- if .NodeSelector]]
      nodeSelector:
        [[- range .NodeSelector]]
        [[q .Key]]: [[q .Value]]
        [[- end]]
      [[- end]]
      [[- if .Tolerations]]
      tolerations:
        [[- range .Tolerations]]
        - key: [[q .Key]]
          operator: [[.Operator]]
          [[- if eq .Operator "Equal"]]
          value: [[q .Value]]
          [[- end]]
          [[- if .Effect]]
          effect: [[.Effect]]
          [[- end]]
        [[- end]]
      [[- end]]
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              [[- template "labels14" .]]
      containers:
        - name: buildkitd
          image: [[q .Image]]
          imagePullPolicy: IfNotPresent
          args:
            [[- range .Args]]
            - [[q .]]
            [[- end]]
          env:
            # for buildctl: of the probes, of the drain, and of clients that come by exec
            - name: BUILDKIT_HOST
              value: [[q (printf "unix://%s" .Socket)]]
          [[- if .TLS]]
          ports:
            - name: buildkit
              containerPort: [[.Port]]
          [[- end]]
          securityContext:
            [[- if .Rootless]]
            # As BuildKit's docs/rootless.md asks for; the image's user is 1000.
            runAsUser: 1000
            runAsGroup: 1000
            seccompProfile:
              type: Unconfined
            appArmorProfile:
              type: Unconfined
            [[- else]]
            privileged: true
            [[- end]]
          [[- if or .Requests .Limits]]
          resources:
            [[- if .Requests]]
            requests:
              [[- range .Requests]]
              [[.Key]]: [[q .Value]]
              [[- end]]
            [[- end]]
            [[- if .Limits]]
            limits:
              [[- range .Limits]]
              [[.Key]]: [[q .Value]]
              [[- end]]
            [[- end]]
          [[- end]]
          # A start with a large cache may take its time. Later a daemon that is slow
          # is one that builds: it is passed over soon, and ended late.
          startupProbe:
            exec:
              command: [buildctl, debug, workers]
            periodSeconds: 2
            timeoutSeconds: 10
            failureThreshold: 150
          readinessProbe:
            exec:
              command: [buildctl, debug, workers]
            periodSeconds: 5
            timeoutSeconds: 10
            failureThreshold: 2
          livenessProbe:
            exec:
              command: [buildctl, debug, workers]
            periodSeconds: 30
            timeoutSeconds: 30
            failureThreshold: 5
          lifecycle:
            preStop:
              exec:
                # A pod that is taken away gets no new builds, because it counts as
                # ending; this waits for those that run. Then buildkitd is told to end:
                # it closes its sockets, lets a last build finish, and exits with
                # status 1, which is no failure.
                command:
                  - sh
                  - -c
                  - |
                    running() {
                      buildctl debug histories --format '{{with .Record}}{{if not .CompletedAt}}running{{end}}{{end}}' 2>/dev/null
                    }
                    sleep 5 # for those who chose this pod just before
                    i=0
                    while [ "$i" -lt [[.DrainSteps]] ] && [ -n "$(running)" ]; do
                      sleep 2
                      i=$((i + 1))
                    done
          volumeMounts:
            - name: cache
              mountPath: [[.State]]
            - name: config
              mountPath: /etc/buildkit
              readOnly: true
            [[- if .TLS]]
            - name: certs
              mountPath: /certs
              readOnly: true
            [[- end]]
      volumes:
        - name: config
          configMap:
            name: [[.Name]]-config
        [[- if .TLS]]
        - name: certs
          secret:
            secretName: [[.DaemonSecret]]
            defaultMode: 0440
        [[- end]]
  volumeClaimTemplates:
    - metadata:
        name: cache
        labels:
          [[- template "labels10" .]]
      spec:
        accessModes: [ReadWriteOnce]
        [[- if .StorageClass]]
        storageClassName: [[q .StorageClass]]
        [[- end]]
        resources:
          requests:
            storage: [[q .Storage]]
[[define "meta"]]
  namespace: [[q .Namespace]]
  labels:
    [[- template "labels4" .]]
[[- end]]
[[- define "labels4"]]
    app.kubernetes.io/name: buildkitd
    app.kubernetes.io/instance: [[q .Name]]
[[- end]]
[[- define "labels6"]]
      app.kubernetes.io/name: buildkitd
      app.kubernetes.io/instance: [[q .Name]]
[[- end]]
[[- define "labels8"]]
        app.kubernetes.io/name: buildkitd
        app.kubernetes.io/instance: [[q .Name]]
[[- end]]
[[- define "labels10"]]
          app.kubernetes.io/name: buildkitd
          app.kubernetes.io/instance: [[q .Name]]
[[- end]]
[[- define "labels14"]]
              app.kubernetes.io/name: buildkitd
              app.kubernetes.io/instance: [[q .Name]]
[[- end]]`
